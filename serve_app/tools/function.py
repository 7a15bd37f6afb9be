"""How does a typed async function become a tool that a model can call?

The function's positional parameters are the model's arguments: their JSON schema comes from the signature, the tool's
description from the docstring. Keyword-only parameters are the service's: each is filled with the value of its type,
an `IdempotencyKey`, or one that is named `idempotency_key`, with the call's own, and no model sees it.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model

from serve_app.errors import InvalidConfiguration, Problem
from serve_app.tools.tool import Said, WrongArguments, spec_of
from serve_app.values import IdempotencyKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.values import ToolSpec

KEY = "idempotency_key"


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A loaded function; implements `Tool`."""

    spec: ToolSpec
    function: Callable[..., Awaitable[Any]]
    arguments: type[BaseModel]
    supplied: Mapping[str, object]
    """The keyword-only arguments that the service fills in."""
    key_parameter: str | None
    """The one that is given the call's idempotency key."""

    def start(self) -> None:
        """It is there."""

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            valid = self.arguments.model_validate(arguments)
        except ValidationError as error:
            raise WrongArguments(_explained(error)) from None
        return {field: getattr(valid, field) for field in type(valid).model_fields}

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        keyed = {self.key_parameter: key} if self.key_parameter else {}
        return Said(_text(await self.function(**given, **keyed, **self.supplied)))

    async def close(self) -> None:
        """A function holds nothing of ours."""


def function_tool(name: str, path: str, settings: ToolSettings, by_type: Mapping[type, object]) -> FunctionTool:
    """The function at `path` as a tool.

    Raises:
        InvalidConfiguration: it is no function that a model can call.
    """
    function = _imported(name, path)
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise _invalid(name, f"an annotation of {path} does not resolve ({error})") from None
    arguments = _arguments(name, signature)
    return FunctionTool(
        spec=spec_of(name, settings, inspect.getdoc(function) or "", _schema(arguments)),
        function=function,
        arguments=arguments,
        supplied=_supplied(name, signature, by_type),
        key_parameter=_key_parameter(signature),
    )


def _imported(name: str, path: str) -> Callable[..., Awaitable[Any]]:
    try:
        function: Callable[..., Awaitable[Any]] = resolve_name(path)
    except Exception as error:  # noqa: BLE001 - importing runs whatever the user's module does
        raise _invalid(name, f"{path} does not import ({type(error).__name__}: {error})") from None
    if not inspect.iscoroutinefunction(function):
        raise _invalid(name, f"{path} is not an async function")
    if not inspect.getdoc(function):
        raise _invalid(name, f"{path} has no docstring to tell the model what it does")
    return function


def _arguments(name: str, signature: inspect.Signature) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.annotation is parameter.empty:
            raise _invalid(name, f"its parameter {parameter.name} has no type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, NameError) as error:
        raise _invalid(name, f"its signature has no JSON schema ({type(error).__name__})") from None


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Without pydantic's titles, which only repeat the names to the model."""
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    for parameter in schema.get("properties", {}).values():
        parameter.pop("title", None)
    return schema


def _key_parameter(signature: inspect.Signature) -> str | None:
    return next((each.name for each in signature.parameters.values() if _is_key(each)), None)


def _is_key(parameter: inspect.Parameter) -> bool:
    """By its type, or by its name where the tool's module should not know of ours."""
    named = parameter.annotation is IdempotencyKey or parameter.name == KEY
    return named and parameter.kind is parameter.KEYWORD_ONLY


def _supplied(name: str, signature: inspect.Signature, by_type: Mapping[type, object]) -> dict[str, object]:
    supplied: dict[str, object] = {}
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or _is_key(parameter):
            continue
        if parameter.annotation in by_type:
            supplied[parameter.name] = by_type[parameter.annotation]
        elif parameter.default is parameter.empty:
            raise _invalid(name, f"the service has nothing for its keyword-only parameter {parameter.name}")
    return supplied


def _invalid(name: str, what: str) -> InvalidConfiguration:
    mend = "A tool is an async function with a docstring and typed parameters, named module:function"
    return InvalidConfiguration((Problem(f"tools.{name}", what, mend),))


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
