"""Are a model's arguments what a JSON schema asks for?"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry

from serve_app.tools.tool import WrongArguments

TOLD_AT_MOST, LENGTH = 5, 200


class Arguments:
    """The arguments object of one tool.

    Raises:
        ValueError: the schema is none of an object.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message[:LENGTH]}") from None
        if schema.get("type") != "object":
            raise ValueError("not the schema of an object: its type is not 'object'")
        self.schema = {"properties": {}, "additionalProperties": False, **schema}
        self._validator = kind(self.schema, registry=Registry())  # a registry of our own fetches no schema by URL
        properties = self.schema["properties"].items()
        self._defaults = {
            name: each["default"] for name, each in properties if isinstance(each, dict) and "default" in each
        }

    @property
    def sure(self) -> frozenset[str]:
        """The named arguments that are there in every call."""
        return frozenset(self.schema["properties"]) & {*self.schema.get("required", []), *self._defaults}

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the schema's defaults for what is left out.

        Raises:
            WrongArguments: they do not fit the schema.
        """
        given = {**self._defaults, **arguments}
        wrong = sorted(map(_told, self._validator.iter_errors(given)))
        if wrong:
            raise WrongArguments("; ".join(wrong[:TOLD_AT_MOST]))
        return given


def _told(error: ValidationError) -> str:
    return f"{'.'.join(map(str, error.path)) or 'arguments'}: {error.message[:LENGTH]}"
