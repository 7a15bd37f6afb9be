"""`serve-app keys` and `serve-app tenants` do what they say, and every command shows its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_service import served
from click.testing import CliRunner
from http_service import empty
from pydantic import SecretStr

from serve_app.cli.main import main
from serve_app.config import AccessSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATORS = "operators-key-of-thirty-two-characters"


@pytest.fixture(scope="module")
def service_url(api_redis_url: str) -> Iterator[str]:
    with served(api_redis_url, access=AccessSettings(), operator_key=SecretStr(OPERATORS)) as url:
        yield url


@pytest.fixture
def url(service_url: str, api_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service without keys and limits."""
    monkeypatch.delenv("SERVE_APP_KEY", raising=False)
    empty(api_redis_url)
    return service_url


def run(url: str, *arguments: str, key: str = OPERATORS) -> tuple[int, str, str]:
    shows = ["--key", key] if key else []
    result = CliRunner().invoke(main, [*arguments, "--url", url, *shows])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_a_key_is_made_shown_once_listed_limited_and_revoked(url: str) -> None:
    order = (
        "--tenant",
        "acme",
        "--scope",
        "knowledge",
        "--scope",
        "chat",
        "--name",
        "the\x1bshop",
        "--turns-burst",
        "5",
    )
    code, key, printed = run(url, "keys", "create", *order)
    key_id = key.split("_")[1]
    assert (code, key) == (0, f"sa_{key_id}_{key.split('_', 2)[2]}")
    assert printed == f"Key {key_id} of acme, for chat,knowledge. It is shown only now:\n"
    code, listed, _ = run(url, "keys", "list")
    assert code == 0
    assert key.strip() not in listed
    titles, row = listed.splitlines()
    assert titles.split() == ["id", "tenant", "scopes", "name", "since", "turns/min", "burst", "tokens/min", "burst"]
    assert (row.split()[:3], row.split()[-4:]) == ([key_id, "acme", "chat,knowledge"], ["-", "5", "-", "-"])
    assert "\x1b" not in row
    _, limited, _ = run(url, "keys", "limit", key_id, "--turns-per-minute", "60", "--turns-burst", "none")
    assert limited.splitlines()[1].split()[-4:] == ["60", "-", "-", "-"]
    assert run(url, "keys", "revoke", key_id) == (0, f"Key {key_id} is revoked.\n", "")
    assert run(url, "keys", "list")[1] == "There are no keys.\n"
    assert run(url, "keys", "revoke", key_id)[0] == 1


def test_a_tenant_keeps_the_limits_that_are_not_named(url: str) -> None:
    assert run(url, "tenants", "list") == (0, "No tenant has limits of its own.\n", "")
    run(url, "tenants", "limit", "acme", "--turns-per-minute", "60", "--weight", "2")
    code, limited, _ = run(url, "tenants", "limit", "acme", "--tokens-per-minute", "100000")
    assert (code, limited.splitlines()[1].split()) == (0, ["acme", "60", "-", "100,000", "-", "2"])
    assert run(url, "tenants", "list")[1] == limited


@pytest.mark.parametrize(
    ("arguments", "code", "saying"),
    [
        (["keys", "create", "--tenant", "a"], 2, "Missing option '--scope'"),
        (["keys", "create", "--scope", "chat"], 2, "Missing option '--tenant'"),
        (["keys", "create", "--tenant", "a b", "--scope", "chat"], 1, "Field 'tenant'"),
        (["keys", "limit", "0" * 16, "--turns-burst", "many"], 2, "'many' is neither a number nor 'none'"),
        (["keys", "limit", "0" * 16, "--turns-burst", "0"], 1, "greater than or equal to 1"),
        (["tenants", "limit", "a", "--weight", "0"], 2, "not in the range"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_in_a_line(url: str, arguments: list[str], code: int, saying: str) -> None:
    ended, _, printed = run(url, *arguments)
    assert ended == code
    assert saying in printed


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "list"],
        ["tenants", "list"],
        ["sessions"],
        ["feedback"],
        ["fault", "list"],
        ["logs", "--run", "r"],
        ["ingest", "--delete", "nothing"],
    ],
    ids=" ".join,
)
def test_every_command_shows_its_key_and_says_where_one_belongs(
    url: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, printed = run(url, *command, key="")
    assert code == 1
    assert "(unauthenticated" in printed
    assert "pass the key with --key or SERVE_APP_KEY" in printed
    assert "unauthenticated" not in run(url, *command)[2]
    (tmp_path / ".env").write_text(f"SERVE_APP_KEY={OPERATORS}\n")
    assert "unauthenticated" not in run(url, *command, key="")[2]
    monkeypatch.setenv("SERVE_APP_KEY", "sa_wrong")
    assert "unauthenticated" in run(url, *command, key="")[2]


def test_a_conversation_shows_the_key_too(url: str) -> None:
    for key, answered in ((OPERATORS, True), ("sa_wrong", False)):
        shows = ["chat", "--session", "s", "--url", url, "--key", key]
        result = CliRunner().invoke(main, shows, input="hello there\n")
        assert (result.exit_code == 0) is answered
        assert ("hello there" in result.output) is answered


def test_a_key_that_no_header_can_carry_is_told(url: str) -> None:
    assert "not allowed in a header" in run(url, "keys", "list", key="clé")[2]


def test_the_service_is_found_by_the_environment_or_the_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["keys", "list", "--key", OPERATORS]
    (tmp_path / ".env").write_text(f"SERVE_APP_URL={url}\n")
    assert CliRunner().invoke(main, keys).exit_code == 0
    monkeypatch.setenv("SERVE_APP_URL", "http://127.0.0.1:9")
    assert "no service answers" in CliRunner().invoke(main, keys).output
    assert CliRunner().invoke(main, [*keys, "--url", url]).exit_code == 0
    monkeypatch.setenv("SERVE_APP_URL", "127.0.0.1:8000")
    assert "a URL begins with http:// or https://" in CliRunner().invoke(main, keys).output
