"""Makes a tool of a typed async function.

The function's positional parameters are the model's arguments: their JSON schema comes from the signature, the tool's
description from the docstring. Keyword-only parameters are filled in by the service, by type; the model does not see
them. A parameter of type `IdempotencyKey`, or with the name `idempotency_key`, gets the key of the call.
"""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo

from serve_app.errors import InvalidConfiguration, Problem
from serve_app.tools.arguments import MAX_MESSAGE_CHARACTERS, MAX_MESSAGES, coerce_arguments
from serve_app.tools.tool import ToolReply, WrongArguments, spec_of
from serve_app.values import IdempotencyKey
from serve_app.values.sanitize import sanitize_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.values import ToolSpec

logger = logging.getLogger(__name__)

KEY_PARAMETER = "idempotency_key"
RESULT_UNREADABLE = "(it was done, and returned something that cannot be put into words)"


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """An imported function; implements `Tool`."""

    spec: ToolSpec
    function: Callable[..., Awaitable[Any]]
    arguments: type[BaseModel]
    parameters: Mapping[str, str]
    """By field of `arguments`, the function's parameter, whose name may not be allowed for a field."""
    supplied: Mapping[str, object]
    """The keyword-only arguments that the service fills in."""
    key_parameter: str | None
    """The parameter that gets the idempotency key of the call."""

    def start(self) -> None:
        """Nothing to connect to."""

    def read_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        coerced = coerce_arguments(arguments, self.spec.parameters)
        try:
            valid = self.arguments.model_validate(coerced)
        except ValidationError as error:
            raise WrongArguments(_messages(error)) from None
        except Exception as error:
            logger.warning("arguments_unreadable", extra={"tool": self.spec.name}, exc_info=error)
            raise WrongArguments(f"they cannot be read ({type(error).__name__})") from None
        return {name: getattr(valid, field) for field, name in self.parameters.items()}

    async def call(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> ToolReply:
        own_key = {self.key_parameter: key} if self.key_parameter else {}
        return ToolReply(result_text(await self.function(**arguments, **own_key, **self.supplied)))

    async def close(self) -> None:
        """Nothing to close."""


def function_tool(name: str, path: str, settings: ToolSettings, by_type: Mapping[type, object]) -> FunctionTool:
    """The function at the import path `module:function` as a tool.

    Raises:
        InvalidConfiguration: a model cannot call it.
    """
    function = _import_function(name, path)
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


def _import_function(name: str, path: str) -> Callable[..., Awaitable[Any]]:
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
    """The type and default of a field, with the parameter's own alias or its name."""
    default = ... if parameter.default is parameter.empty else parameter.default
    annotations = [*getattr(parameter.annotation, "__metadata__", ()), default]
    if any(isinstance(each, FieldInfo) and (each.alias or each.validation_alias) for each in annotations):
        return parameter.annotation, default
    if isinstance(default, FieldInfo):
        return Annotated[parameter.annotation, default], Field(alias=parameter.name)
    return parameter.annotation, Field(default, alias=parameter.name)


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema, without pydantic's titles: they only repeat the names."""
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    for parameter in schema.get("properties", {}).values():
        parameter.pop("title", None)
    return schema


def _key_parameter(signature: inspect.Signature) -> str | None:
    return next((each.name for each in signature.parameters.values() if _is_key_parameter(each)), None)


def _is_key_parameter(parameter: inspect.Parameter) -> bool:
    """Whether the parameter takes the idempotency key, by its type or by its name."""
    matches = parameter.annotation is IdempotencyKey or parameter.name == KEY_PARAMETER
    return matches and parameter.kind is parameter.KEYWORD_ONLY


def _supplied(name: str, signature: inspect.Signature, by_type: Mapping[type, object]) -> dict[str, object]:
    supplied: dict[str, object] = {}
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or _is_key_parameter(parameter):
            continue
        if parameter.annotation in by_type:
            supplied[parameter.name] = by_type[parameter.annotation]
        elif parameter.default is parameter.empty:
            raise _invalid(name, f"the service has nothing for its keyword-only parameter {parameter.name}")
    return supplied


def _invalid(name: str, what: str) -> InvalidConfiguration:
    fix = "A tool is an async function with a docstring and typed parameters, named module:function"
    return InvalidConfiguration((Problem(f"tools.{name}", what, fix),))


def _messages(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    messages = [f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in errors]
    return "; ".join(sorted(message[:MAX_MESSAGE_CHARACTERS] for message in messages)[:MAX_MESSAGES])


def result_text(value: Any) -> str:
    """A function's return value as text: a string as it is, anything else as JSON.

    Raises nothing: the call is done by now, and its result must not make it a failure.
    """
    try:
        valid = sanitize_json(value)
        if isinstance(valid, str):
            return valid
        separators = (",", ":") if isinstance(value, BaseModel) else None
        return json.dumps(valid, ensure_ascii=False, separators=separators)
    except BaseException as error:  # the value's own methods may even call sys.exit
        logger.warning("result_unreadable", exc_info=error)
        return RESULT_UNREADABLE
