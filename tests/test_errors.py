"""Errors cross processes whole, and clients see only what they may."""

from __future__ import annotations

import pickle

import pytest

from serve_app import errors
from serve_app.errors import Internal, InvalidConfiguration, Overloaded, Problem, ServeAppError
from serve_app.values import Failure

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ServeAppError)]


@pytest.mark.parametrize("kind", [each for each in CLASSES if each is not InvalidConfiguration])
def test_an_error_arrives_pickled_as_it_left(kind: type[ServeAppError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened", retry_after_s=2.5)))
    assert type(error) is kind
    assert (str(error), error.retry_after_s) == ("what happened", 2.5)


def test_an_invalid_configuration_keeps_its_problems() -> None:
    problems = (Problem("a.yaml: x", "unknown key", "Remove it"), Problem("PORT", "taken", "Free it"))
    error = pickle.loads(pickle.dumps(InvalidConfiguration(problems)))
    assert error.problems == problems
    assert str(error) == "a.yaml: x: unknown key. Remove it\nPORT: taken. Free it"


def test_every_error_has_a_code_and_a_status_of_its_kind() -> None:
    for kind in CLASSES:
        assert 400 <= kind.status < 600
        assert kind.code.replace("_", "").isalpha()


@pytest.mark.parametrize("error", [Internal("secret"), ValueError("secret"), ServeAppError("fine")])
def test_a_client_sees_no_text_of_a_fault_inside(error: Exception) -> None:
    failure = Failure.of(error, "r1")
    assert (failure.code, failure.request_id) == ("internal", "r1")
    assert "secret" not in failure.message


def test_a_client_sees_what_it_can_act_on() -> None:
    failure = Failure.of(Overloaded("Too many requests wait"), "r1")
    assert (failure.code, failure.message, failure.retryable) == ("overloaded", "Too many requests wait", True)
