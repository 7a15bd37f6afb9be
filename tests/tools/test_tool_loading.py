"""Typed functions become tools, and unusable ones become problems."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from serve_app.config import OrdersSettings, ToolSettings
from serve_app.tools.registry import load_tools
from serve_app.values import IdempotencyKey


async def book(room: Annotated[int, Field(ge=1, description="Room number")], day: Literal["mon", "tue"] = "mon") -> str:
    """Book a room."""
    return f"{room} {day}"


async def with_orders(order_id: str, *, orders: OrdersSettings) -> str:
    """Look at the orders."""
    return f"{order_id} {orders.file}"


async def undocumented(text: str) -> str:
    return text


def blocking(text: str) -> str:
    """Block."""
    return text


async def untyped(text) -> str:  # type: ignore[no-untyped-def]
    """Take anything."""
    return str(text)


async def needy(text: str, *, database: dict[str, Any]) -> str:
    """Need what the service does not have."""
    return f"{text} {database}"


async def pay(amount: int, *, orders: OrdersSettings, once: IdempotencyKey) -> str:
    """Pay an amount once."""
    return f"{amount} {orders.file} {once}"


async def pay_by_name(amount: int, *, idempotency_key: str) -> str:
    """Take the key by its name."""
    return f"{amount} {idempotency_key}"


async def pay_as_the_model_likes(amount: int, key: IdempotencyKey) -> str:
    """Have the key where the model's arguments are."""
    return f"{amount} {key}"


def _load(name: str, **settings: Any) -> Any:
    return load_tools({"it": ToolSettings(function=f"{__name__}:{name}", **settings)}, injectable=[OrdersSettings()])


def test_the_schema_comes_from_the_signature() -> None:
    tools, problems = _load("book")
    assert problems == {}
    assert tools["it"].spec.description == "Book a room."
    assert tools["it"].spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "room": {"type": "integer", "minimum": 1, "description": "Room number"},
            "day": {"type": "string", "enum": ["mon", "tue"], "default": "mon"},
        },
        "required": ["room"],
    }


def test_a_keyword_only_parameter_is_filled_by_the_service_and_hidden_from_the_model() -> None:
    tools, _ = _load("with_orders")
    assert list(tools["it"].spec.parameters["properties"]) == ["order_id"]
    assert tools["it"].tool.supplied == {"orders": OrdersSettings()}


@pytest.mark.parametrize("effect", ["pure", "idempotent", "effect"])
def test_an_idempotency_key_is_the_calls_own_and_hidden_from_the_model(effect: str) -> None:
    tools, problems = _load("pay", effect=effect)
    assert problems == {}
    assert list(tools["it"].spec.parameters["properties"]) == ["amount"]
    assert tools["it"].tool.supplied == {"orders": OrdersSettings()}
    assert (tools["it"].tool.key_parameter, tools["it"].spec.effect) == ("once", effect)


@pytest.mark.parametrize("effect", ["pure", "idempotent", "effect"])
def test_a_tool_that_is_idempotent_by_nature_needs_no_key(effect: str) -> None:
    tools, problems = _load("book", effect=effect)
    assert (tools["it"].tool.key_parameter, problems) == (None, {})


def test_a_key_may_be_told_by_its_name() -> None:
    tools, problems = _load("pay_by_name", effect="idempotent")
    assert problems == {}
    assert (tools["it"].tool.key_parameter, tools["it"].spec.parameters["required"]) == ("idempotency_key", ["amount"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("absent", "does not import"),
        ("undocumented", "no docstring"),
        ("blocking", "not an async function"),
        ("untyped", "text has no type"),
        ("pay_as_the_model_likes", "no JSON schema"),
        ("needy", "nothing for its keyword-only parameter database"),
    ],
)
def test_a_function_that_is_no_tool_is_a_problem_that_says_why(name: str, what: str) -> None:
    tools, problems = _load(name)
    assert tools == {}
    assert what in problems["it"].what
    assert problems["it"].where == "tools.it"


def test_a_module_that_does_not_exist_is_a_problem_and_not_a_traceback() -> None:
    _, problems = load_tools({"it": ToolSettings(function="no_such_module:tool")}, injectable=[])
    assert "does not import (ModuleNotFoundError" in problems["it"].what
