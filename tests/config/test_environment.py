"""The settings come from a file and from environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_files import VARIABLES, lines, write

from serve_app.config import (
    Settings,
    data_dir,
    draft_settings,
    load_settings,
    read_environment,
    read_secret,
)
from serve_app.errors import InvalidConfiguration


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (None, "is not set. Set it, or put it into .env"),
        ("short", "holds a key of fewer than 32 characters, which can be guessed. Make one: "),
        ("k" * 31 + "é", "holds a key with a space or a character that no header can carry. Make one: "),
        ("k" * 16 + " " + "k" * 16, "holds a key with a space"),
        ("k" * 32, ""),
    ],
)
def test_the_operators_key_cannot_be_guessed(key: str | None, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv("OPERATORS", key)
    found = lines(write("access: {admin_key_env: OPERATORS}"))
    assert len(found) == bool(what)
    for line in found:
        assert line.startswith(f"app.yaml:1: access.admin_key_env: the environment variable OPERATORS {what}")
        assert not key or key not in line


def test_a_wrong_key_and_a_missing_variable_are_told_together() -> None:
    write("model: {name: 'openai:glm-4', api_key_env: NOT_SET_KEY, tempratur: 1}\nwindoww: 1\n")
    found = lines()
    assert len(found) == 3
    assert "app.yaml:1: model.api_key_env: the environment variable NOT_SET_KEY is not set" in found[-1]


def test_a_file_and_the_environment_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_APP_MODEL", "openai:glm-4")
    monkeypatch.setenv("SERVE_APP_MODEL_BASE_URL", "open.bigmodel.cn")
    found = lines("nowhere.yaml")
    assert len(found) == 2
    assert found[1].startswith("SERVE_APP_MODEL_BASE_URL: not an http:// or https:// URL")


def test_the_environment_names_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("memory: {window: 7}\n", "other.yaml")
    monkeypatch.setenv("SERVE_APP_CONFIG", "other.yaml")
    assert load_settings("app.yaml").memory.window == 7
    monkeypatch.setenv("SERVE_APP_CONFIG", "gone.yaml")
    assert lines()[0].startswith("SERVE_APP_CONFIG=gone.yaml: no such file")


def test_another_model_brings_its_own_endpoint_and_key_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    write("model: {name: 'openai:a', base_url: 'http://a/v1', api_key_env: A_KEY, timeout_s: 9}\n")
    monkeypatch.setenv("SERVE_APP_MODEL", "ollama:b")
    model = load_settings("app.yaml").model
    assert (model.name, model.base_url, model.api_key_env, model.timeout_s) == ("ollama:b", None, None, 9)
    monkeypatch.setenv("SERVE_APP_MODEL_BASE_URL", "http://b/v1")
    monkeypatch.setenv("SERVE_APP_MODEL_API_KEY", "b")
    model = load_settings("app.yaml").model
    assert (model.base_url, model.api_key_env) == ("http://b/v1", "SERVE_APP_MODEL_API_KEY")


def test_another_model_has_the_same_fallbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_APP_MODEL", "openai:other")
    monkeypatch.setenv("SERVE_APP_MODEL_API_KEY", "sk-other")
    settings = load_settings(
        write("model: {name: 'openai:glm-4', fallbacks: [{name: offline, base_url: 'http://h'}]}\n")
    )
    assert settings.model.name == "openai:other"
    (fallback,) = settings.model.fallbacks
    assert (fallback.name, fallback.base_url, fallback.api_key_env) == ("offline", "http://h", None)


def test_an_endpoint_and_a_key_alone_are_those_of_the_files_model(monkeypatch: pytest.MonkeyPatch) -> None:
    write("model: {name: 'openai:a'}\n")
    monkeypatch.setenv("SERVE_APP_MODEL_BASE_URL", "http://b/v1")
    monkeypatch.setenv("SERVE_APP_MODEL_API_KEY", "b")
    model = load_settings("app.yaml").model
    assert (model.name, model.base_url, model.api_key_env) == ("openai:a", "http://b/v1", "SERVE_APP_MODEL_API_KEY")


def test_a_key_without_a_model_is_told_because_the_answers_would_stay_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    write("")
    monkeypatch.setenv("SERVE_APP_MODEL_API_KEY", "k")
    (line,) = lines()
    assert line.startswith("SERVE_APP_MODEL: not set, while SERVE_APP_MODEL_API_KEY is: the model is still 'offline'")


def test_empty_variables_as_of_a_copied_env_example_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert load_settings(write("")).model == Settings().model
    assert data_dir().name == ".serve_app"


@pytest.mark.parametrize(
    ("value", "fault"),
    [(None, "is not set"), ("", "is empty"), ("  ", "is empty"), ("sk-1\n", "holds a line break")],
)
def test_a_secret_that_cannot_work_is_told_without_being_shown(
    value: str | None, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("redis: {url: 'redis://cache', password_env: CACHE_PASSWORD}\n")
    if value is not None:
        monkeypatch.setenv("CACHE_PASSWORD", value)
    (line,) = lines()
    assert line.startswith(f"app.yaml:1: redis.password_env: the environment variable CACHE_PASSWORD {fault}. ")
    assert "sk-1" not in line


def test_a_secret_that_stands_in_the_file_is_refused_without_being_shown() -> None:
    write("model: {name: 'openai:a', api_key_env: sk-12345, base_url: 'https//sk-12345'}\n")
    found = lines()
    assert len(found) == 2
    assert "not the name of an environment variable" in " ".join(found)
    assert "sk-12345" not in " ".join(found)


def test_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    write("FROM_FILE=file\nFROM_BOTH=file\n", ".env")
    monkeypatch.setenv("FROM_BOTH", "process")
    assert read_environment()["FROM_FILE"] == "file"
    assert read_secret("FROM_BOTH").get_secret_value() == "process"
    with pytest.raises(InvalidConfiguration, match="NOT_THERE: the environment variable is not set"):
        read_secret("NOT_THERE")


def test_a_malformed_env_file_is_told_by_line(here: Path) -> None:
    write("")
    write("GOOD=1\nno equals sign here\n", ".env")
    assert lines() == [".env:2: not of the form NAME=value. Correct the line, or put # before it"]
    (here / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfiguration, match=r"^\.env: cannot be read"):
        draft_settings("app.yaml")


def test_the_data_folder_is_where_the_environment_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_dir() == here / ".serve_app"
    monkeypatch.setenv("SERVE_APP_DATA_DIR", "~/somewhere")
    assert data_dir() == Path.home() / "somewhere"


@pytest.mark.parametrize("name", ["SERVE_APP_MODLE", "SERVE_APP_CONFGI", "SERVE_APP_DATADIR"])
def test_a_misspelled_variable_is_a_problem_with_the_nearest_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text("model: {name: offline}")
    monkeypatch.setenv(name, "x")
    problems = draft_settings(tmp_path / "c.yaml").problems
    assert [problem.where for problem in problems] == [name]
    assert problems[0].fix.startswith("Did you mean SERVE_APP_")


def test_a_secret_that_another_configuration_names_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text("model: {name: offline}")
    monkeypatch.setenv("SERVE_APP_REDIS_PASSWORD", "x")
    assert draft_settings(tmp_path / "c.yaml").problems == ()
