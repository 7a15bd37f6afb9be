"""How does a typed async function become a tool that a model can call?

The function's positional parameters are the model's arguments: their JSON schema comes from the signature, the tool's
description from the docstring. Keyword-only parameters are the service's: each is filled with the value of its type,
an `IdempotencyKey`, or one that is named `idempotency_key`, with the call's own, and no model sees it.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo

from serve_app.errors import InvalidConfiguration, Problem
from serve_app.tools.answer import text_of
from serve_app.tools.schema import LENGTH, TOLD_AT_MOST, fitted
from serve_app.tools.tool import Said, WrongArguments, spec_of
from serve_app.values import IdempotencyKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.values import ToolSpec

logger = logging.getLogger(__name__)

KEY = "idempotency_key"


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A loaded function; implements `Tool`."""

    spec: ToolSpec
    function: Callable[..., Awaitable[Any]]
    arguments: type[BaseModel]
    parameters: Mapping[str, str]
    """By field of `arguments`, the function's parameter: that may have a name which no field may have."""
    supplied: Mapping[str, object]
    """The keyword-only arguments that the service fills in."""
    key_parameter: str | None
    """The one that is given the call's idempotency key."""

    def start(self) -> None:
        """It is there."""

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = fitted(arguments, self.spec.parameters)
        try:
            valid = self.arguments.model_validate(given)
        except ValidationError as error:
            raise WrongArguments(_explained(error)) from None
        except Exception as error:
            logger.warning("arguments_unreadable", extra={"tool": self.spec.name}, exc_info=error)
            raise WrongArguments(f"they cannot be read ({type(error).__name__})") from None
        return {name: getattr(valid, field) for field, name in self.parameters.items()}

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        keyed = {self.key_parameter: key} if self.key_parameter else {}
        return Said(text_of(await self.function(**given, **keyed, **self.supplied)))

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
    arguments, parameters = _arguments(name, signature)
    return FunctionTool(
        spec=spec_of(name, settings, inspect.getdoc(function) or "", _schema(arguments)),
        function=function,
        arguments=arguments,
        parameters=parameters,
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


def _arguments(name: str, signature: inspect.Signature) -> tuple[type[BaseModel], dict[str, str]]:
    fields: dict[str, Any] = {}
    parameters: dict[str, str] = {}
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.annotation is parameter.empty:
            raise _invalid(name, f"its parameter {parameter.name} has no type")
        field = f"argument_{len(fields)}"
        parameters[field] = parameter.name
        fields[field] = _field(parameter)
    try:
        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        return create_model(name, __config__=config, **fields), parameters
    except (PydanticUserError, NameError) as error:
        raise _invalid(name, f"its signature has no JSON schema ({type(error).__name__})") from None


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """The type and the default of a field that the model knows by the parameter's name, or by the alias that it has."""
    default = ... if parameter.default is parameter.empty else parameter.default
    told = [*getattr(parameter.annotation, "__metadata__", ()), default]
    if any(isinstance(each, FieldInfo) and (each.alias or each.validation_alias) for each in told):
        return parameter.annotation, default
    if isinstance(default, FieldInfo):
        return Annotated[parameter.annotation, default], Field(alias=parameter.name)
    return parameter.annotation, Field(default, alias=parameter.name)


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
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    told = (f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}"[:LENGTH] for each in wrong)
    return "; ".join(sorted(told)[:TOLD_AT_MOST])
