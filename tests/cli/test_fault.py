"""`serve-app fault` sets, lists and ends faults, and shows what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_service import served
from click.testing import CliRunner

from serve_app.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def url(api_redis_url: str) -> Iterator[str]:
    with served(api_redis_url) as url:
        yield url


@pytest.fixture(autouse=True)
def _none_is_left(url: str) -> None:
    fault(url, "clear")


def fault(url: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["fault", *arguments, "--url", url])
    return result.exit_code, result.output


def test_a_fault_is_set_listed_and_cleared(url: str) -> None:
    line = "tool:order_query: error, 30% of calls, 60 s left\n"
    assert fault(url, "set", "tool:order_query", "--mode", "error", "--rate", "0.3", "--for", "60s") == (0, line)
    code, output = fault(url, "set", "retriever", "--mode", "slow", "--delay", "500ms", "--for", "5m")
    assert (code, output.splitlines()[0]) == (0, "retriever: slow by 0.5 s, 100% of calls, 300 s left")
    assert len(fault(url, "list")[1].splitlines()) == 2
    assert fault(url, "clear", "retriever")[1].startswith("tool:order_query: error")
    assert fault(url, "clear") == fault(url, "list") == (0, "There are no active faults.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "saying"),
    [
        (["model"], 2, "Missing option '--mode'"),
        (["model", "--mode", "burn"], 2, "'burn' is not one of"),
        (["model", "--mode", "error", "--rate", "2"], 2, "not in the range"),
        (["model", "--mode", "error", "--for", "soon"], 2, "'soon' is not a duration: write 60s, 500ms, 5m or 1h"),
        (["redis", "--mode", "error"], 1, "Field 'target'"),
        (["model", "--mode", "error", "--for", "2h"], 1, "Field 'for_s'"),
    ],
    ids=str,
)
def test_what_cannot_be_set_is_told(url: str, arguments: list[str], code: int, saying: str) -> None:
    ended, output = fault(url, "set", *arguments)
    assert ended == code
    assert saying in output


def test_a_service_that_does_not_allow_faults_says_how_to(api_redis_url: str) -> None:
    with served(api_redis_url, fault_injection=False) as url:
        for arguments in (["list"], ["clear"], ["set", "model", "--mode", "error"]):
            code, output = fault(url, *arguments)
            assert (code, output.count("\n")) == (1, 1)
            assert "faults: {enabled: true}" in output
