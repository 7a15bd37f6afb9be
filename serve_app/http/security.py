"""Which key does each route ask for, in the words of OpenAPI?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve_app.http.auth import OPEN, scope_of
from serve_app.http.responses import refusals

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "Key"
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key as `serve-app keys create` tells it. Its scopes say which routes it opens.",
}
_FAILED = {"application/json": {"schema": {"$ref": "#/components/schemas/Failed"}}}


def describe_keys(api: FastAPI) -> None:
    """Add to the documentation what `Authenticated` does."""
    describe = api.openapi

    def described() -> dict[str, Any]:
        begun = api.openapi_schema is None
        document = describe()
        if begun:
            document.setdefault("components", {})["securitySchemes"] = {NAME: _SCHEME}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _describe(path, operation)
        return document

    api.openapi = described  # type: ignore[method-assign]


def _describe(path: str, operation: dict[str, Any]) -> None:
    if path in OPEN:
        operation["security"] = []
        return
    operation["security"] = [{NAME: [scope] if (scope := scope_of(path)) else []}]
    for status, entry in refusals(401, 403, 429).items():
        rest = {name: value for name, value in entry.items() if name != "model"}
        operation["responses"].setdefault(str(status), {**rest, "content": _FAILED})
