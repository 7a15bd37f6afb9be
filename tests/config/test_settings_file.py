"""A settings file gives settings, or problems with their lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from settings_files import lines, write

from serve_app.config import (
    HttpSettings,
    MilvusSettings,
    OrdersSettings,
    RedisSettings,
    Settings,
    draft_settings,
    load_settings,
    read_yaml,
)
from serve_app.errors import InvalidConfiguration

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("text", ["", "model:\nagent:\n", "# nothing\n"])
def test_what_is_left_out_or_left_empty_has_its_default(text: str) -> None:
    settings = load_settings(write(text))
    assert settings.model == Settings().model
    assert settings.agent == Settings().agent


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_the_configurations_that_we_ship_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for secret_name in ("ZHIPU_API_KEY", "SERVE_APP_REDIS_PASSWORD", "SERVE_APP_MILVUS_TOKEN", "SERVE_APP_ADMIN_KEY"):
        monkeypatch.setenv(secret_name, "x" * 32)
    settings = load_settings(ROOT / "configs" / name)
    assert settings.orders.file == ROOT / "configs" / "orders.json"


def test_proxies_that_are_trusted_are_addresses_and_networks() -> None:
    settings = load_settings(write("access: {trusted_proxies: [10.0.0.0/8, 127.0.0.1, 'fd00::/8']}"))
    assert settings.access.trusted_proxies == ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")
    for wrong in ("nginx", "10.0.0.1/8", "'*'"):
        [line] = lines(write(f"access: {{trusted_proxies: [{wrong}]}}"))
        assert "neither an address nor a network such as 10.0.0.0/8" in line


def test_a_standby_is_a_server_of_its_own() -> None:
    settings = load_settings(write("milvus: {url: 'http://a:19530', standby: 'http://b:19530'}\n"))
    assert settings.milvus == MilvusSettings(url="http://a:19530", standby="http://b:19530")
    [line] = lines(write("milvus: {standby: embedded}\n"))
    assert "not an http:// or https:// URL" in line


def test_a_search_is_short_and_nothing_fails_on_purpose_by_default() -> None:
    assert (Settings().knowledge.timeout_s, Settings().knowledge.total_timeout_s) == (0.5, 2)
    assert not Settings().faults.enabled


def test_no_answer_is_kept_unless_a_time_is_given() -> None:
    assert Settings().cache.ttl_s is None
    assert load_settings(write("cache: {ttl_s: 600}\n")).cache.ttl_s == 600
    [line] = lines(write("cache: {ttl_s: 0}\n"))
    assert "cache.ttl_s" in line


def test_a_store_may_be_written_as_its_url_alone() -> None:
    settings = load_settings(write("redis: redis://cache:6379/1\nmilvus: {url: 'http://vectors:19530'}\n"))
    assert settings.redis == RedisSettings(url="redis://cache:6379/1")
    assert settings.milvus == MilvusSettings(url="http://vectors:19530")


def test_every_problem_of_the_file_is_told_at_once_with_its_line() -> None:
    write(
        """\
model:
  tempratur: 0.2
memory:
  window: -1
tools:
  lookup: {timeout: 3}
window: 3
http: []
knowledge:
  mode: fuzzy
  zzz: 1
"""
    )
    assert set(lines()) == {
        "app.yaml:2: model.tempratur: unknown key. Did you mean 'temperature'?",
        (
            "app.yaml:4: memory.window: should be greater than or equal to 0. "
            "Change it, or leave it out for the default, 3"
        ),
        (
            "app.yaml:6: tools.lookup.function: a tool has exactly one of http, mcp, function. "
            "Change it, or leave it out"
        ),
        "app.yaml:6: tools.lookup.timeout: unknown key. Did you mean 'timeout_s'?",
        "app.yaml:7: window: unknown key. Did you mean 'memory.window'?",
        "app.yaml:8: http: not a section. Write its keys below it, indented",
        (
            "app.yaml:10: knowledge.mode: should be 'lexical', 'dense' or 'hybrid'. "
            "Change it, or leave it out for the default, lexical"
        ),
        (
            "app.yaml:11: knowledge.zzz: unknown key. "
            "Valid keys: collection, description, embedding, limit, min_score, mode, timeout_s"
        ),
    }
    with pytest.raises(InvalidConfiguration) as raised:
        load_settings("app.yaml")
    assert [str(problem) for problem in raised.value.problems] == lines()


def test_a_draft_keeps_what_is_right_beside_what_is_wrong() -> None:
    write(
        """\
model: {name: 'openai:glm-4', timeout_s: never}
tools:
  good: {function: 'json:dumps', attempts: 0}
  lost: {timeout_s: 3}
  "no name": {function: 'json:dumps'}
"""
    )
    found = draft_settings("app.yaml")
    assert found.settings.model.name == "openai:glm-4"
    assert found.settings.model.timeout_s == 30
    assert list(found.settings.tools.by_name) == ["good"]
    assert len(found.problems) == 4


def test_what_is_wrong_in_a_list_is_told_beside_the_rest_of_it() -> None:
    write(
        """\
model:
  name: openai:glm-4
  fallbacks:
    - {name: 'openai:a', tempratur: 1}
    - {name: 'openai:b', api_key_env: NOT_SET_KEY, fallbacks: []}
    - {nam: 'openai:c', base_url: nowhere}
    - just text
    - {name: 'openai:d'}
memory: {window: 5}
"""
    )
    assert lines() == [
        "app.yaml:4: model.fallbacks.0.tempratur: unknown key. Did you mean 'temperature'?",
        "app.yaml:5: model.fallbacks.1.fallbacks: unknown key. Did you mean 'model.fallbacks'?",
        "app.yaml:6: model.fallbacks.2.name: missing. Add it",
        "app.yaml:6: model.fallbacks.2.base_url: not an http:// or https:// URL. Change it, or leave it out",
        "app.yaml:6: model.fallbacks.2.nam: unknown key. Did you mean 'name'?",
        "app.yaml:7: model.fallbacks.3: not a section. Write its keys below it, indented",
        (
            "app.yaml:5: model.fallbacks.1.api_key_env: the environment variable NOT_SET_KEY is not set. "
            "Set it, or put it into .env"
        ),
    ]
    settings = draft_settings("app.yaml").settings
    assert [each.name for each in settings.model.fallbacks] == ["openai:a", "openai:b"]
    assert settings.memory.window == 5


def test_a_tool_may_not_take_the_retrievers_name() -> None:
    write("tools: {knowledge_search: {function: 'a:b'}}\n")
    assert lines() == ["app.yaml:1: tools.knowledge_search: the name is taken: it is the retriever's. Change it"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: [\n", "app.yaml:2: not valid YAML (expected the node content, but found '<stream end>')"),
        ("a: b: c\n", "app.yaml:1: not valid YAML (mapping values are not allowed here)"),
        ("- model\n", "app.yaml: not a mapping of sections"),
        ("just words\n", "app.yaml: not a mapping of sections"),
        ("agent: 2020-99-99\n", "app.yaml: not valid YAML (month must be in 1..12)"),
        ("a: !!python/object:os.system {}\n", "app.yaml:1: not valid YAML (could not determine a constructor"),
        ("a: \x01\n", "app.yaml: not valid YAML ("),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_one_problem(text: str, expected: str) -> None:
    write(text)
    (line,) = lines()
    assert line.startswith(expected)
    assert "\n" not in line


def test_a_file_that_cannot_be_read_is_one_problem(here: Path) -> None:
    (here / "latin.yaml").write_bytes(b"prompt: caf\xe9\n")
    assert lines("nowhere.yaml") == [
        f"nowhere.yaml: no such file. The path is relative to the working directory, {here}",
    ]
    assert lines("latin.yaml") == ["latin.yaml: not UTF-8 at byte 11. Save the file as UTF-8"]
    assert lines(".") == [".: cannot be read (Is a directory). Name a readable file"]


def test_an_address_of_redis_is_embedded_or_a_url() -> None:
    for url in ("embedded", "redis://h", "redis://:p@h:6379/0", "rediss://[::1]:6380"):
        assert RedisSettings(url=url).url == url
    for url in (
        "",
        "localhost:6379",
        "redis://",
        "redis://:6379",
        "redis://h:port",
        "redis://h h",
        "http://h",
        "redis://[",
    ):
        with pytest.raises(ValidationError, match="redis://host:6379/0"):
            RedisSettings(url=url)


@pytest.mark.parametrize("url", ["vectors:19530", "tcp://vectors:19530", "http://", "http://vectors:99999"])
def test_what_is_no_address_over_http_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="http://host:19530"):
        MilvusSettings(url=url)
    with pytest.raises(ValidationError, match="not an http:// or https:// URL"):
        OrdersSettings(url=url)


def test_a_time_out_is_finite() -> None:
    write("model: {timeout_s: .inf}\nagent: {turn_timeout_s: .nan}\n")
    assert len(lines()) == 2


TIMEOUTS = """\
agent: {turn_timeout_s: 1}
model:
  timeout_s: 1
  fallbacks: [{name: offline, timeout_s: 1}]
tools:
  lookup: {function: 'a:b', timeout_s: 1}
  search:
    mcp: {url: 'http://h/mcp', connect_timeout_s: 1}
    timeout_s: 1
knowledge:
  timeout_s: 1
  mode: hybrid
  embedding: {factory: 'a:b', timeout_s: 1}
redis: {timeout_s: 1}
milvus: {timeout_s: 1}
"""
"""Every time that a call of another may take."""


def test_a_time_out_is_a_positive_number_of_seconds() -> None:
    for place in range(TIMEOUTS.count("timeout_s: 1")):
        *before, after = TIMEOUTS.split("timeout_s: 1", place + 1)
        number = "".join(before).count("\n") + 1
        for wrong in ("0", "-1", ".inf", "never"):
            write("timeout_s: 1".join(before) + f"timeout_s: {wrong}" + after)
            (line,) = lines()
            assert line.startswith(f"app.yaml:{number}: "), (number, wrong, line)
            assert "timeout_s: " in line, (number, wrong, line)


def test_each_time_out_can_be_set() -> None:
    write(TIMEOUTS)
    assert lines() == []
    settings = draft_settings("app.yaml").settings
    tools, embedding = settings.tools.by_name, settings.knowledge.embedding
    assert settings.agent.turn_timeout_s == settings.model.timeout_s == settings.model.fallbacks[0].timeout_s == 1
    assert tools["lookup"].timeout_s == tools["search"].timeout_s == 1
    assert tools["search"].mcp
    assert tools["search"].mcp.connect_timeout_s == 1
    assert embedding
    assert embedding.timeout_s == settings.knowledge.timeout_s == 1
    assert settings.redis.timeout_s == settings.milvus.timeout_s == 1


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        HttpSettings().max_chat_body_bytes = 1  # type: ignore[misc]


def test_an_effect_has_one_attempt() -> None:
    write("tools:\n  pay: {function: 'a:b', effect: effect}\n  send: {function: 'a:b', effect: effect, attempts: 2}\n")
    assert draft_settings("app.yaml").settings.tools.by_name["pay"].attempts == 1
    (line,) = lines()
    assert line.startswith("app.yaml:3: tools.send: a tool with effect: effect has one attempt")


def test_the_line_of_a_key_is_that_of_its_nearest_enclosing_key() -> None:
    source = read_yaml(write("a:\n  b: [1,\n    {c: 2}]\n"))
    assert source.where("a", "b", 1, "c") == "app.yaml:3: a.b.1.c"
    assert source.where("a", "x", "y") == "app.yaml:1: a.x.y"
    assert source.where("z") == "app.yaml: z"


SECTIONS = ["model", "redis", "tools", "egress", "groups", "http", "private_hosts", "knowledge", "embedding", "orders"]


KEYS = st.sampled_from([*SECTIONS, "fallbacks", "name", "url", "function", "mode", "file", "", "x"])


TEXTS = st.text(st.characters(exclude_categories=["C"]), max_size=8)


TREES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["C"]), max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(tree=st.dictionaries(KEYS, TREES, max_size=6))
def test_any_tree_becomes_settings_or_problems_of_one_line_each(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    found = draft_settings(file)
    assert isinstance(found.settings, Settings)
    assert all("\n" not in str(problem) for problem in found.problems)


HTTP = "http: {url: 'http://orders/{id}', description: Look up.}"


@pytest.mark.parametrize(
    ("section", "what"),
    [
        (f"{{function: 'a:b', {HTTP}}}", "tools.it.function: a tool has exactly one of http, mcp, function"),
        ("{mcp: {}}", "tools.it.mcp: name the MCP server either by url or by command"),
        ("{mcp: {url: 'http://m/', command: [m]}}", "tools.it.mcp: name the MCP server either by url or by command"),
        (f"{{{HTTP}, effect: effect, fallback: other}}", "tools.it: a tool with effect: effect has no standby"),
        ("{http: {url: 'http://{id}/', description: x}}", "tools.it.http.url: a {parameter} stands in the host"),
        ("{http: {url: 'http://h/#{id}', description: x}}", "tools.it.http.url: a {parameter} stands in the host"),
        ("{http: {url: 'http://u:p@h/', description: x}}", "tools.it.http.url: a user or a password stands in the URL"),
        (
            "{http: {url: 'http://h/{a-b}', description: x}}",
            "tools.it.http.url: a brace that belongs to no {parameter}",
        ),
        ("{http: {url: 'ftp://h/', description: x}}", "tools.it.http.url: not an http:// or https:// URL"),
        (
            "{http: {url: 'http://h/', description: x, headers_env: {Host: H}}}",
            "tools.it.http.headers_env.Host: the header belongs to the connection",
        ),
        (
            "{http: {url: 'http://h/', description: x, headers_env: {Token: NOT_SET_TOKEN}}}",
            "tools.it.http.headers_env.Token: the environment variable NOT_SET_TOKEN is not set",
        ),
        ("{function: 'a:b', retry_on: [sometimes]}", "tools.it.retry_on.0: should be 'timeout', 'connection' or"),
    ],
)
def test_a_tool_that_cannot_be_meant_is_told(section: str, what: str) -> None:
    write(f"tools:\n  it: {section}\n")
    (line,) = lines()
    assert line.startswith(f"app.yaml:2: {what}")


def test_groups_stand_beside_the_tools() -> None:
    tools = load_settings(
        write(
            "tools:\n  a: {function: 'm:a'}\n  b: {function: 'm:b'}\n  copy: {function: 'm:c'}\n"
            "  groups: {risky: {tools: [b], memory_mb: 512}}\n"
        )
    ).tools
    assert list(tools.by_name) == ["a", "b", "copy"]
    assert (tools.names_of_group(None), tools.names_of_group("risky")) == (["a", "copy"], ["b"])
    assert tools.groups["risky"].memory_mb == 512


def test_a_wrong_group_or_host_leaves_the_rest_as_it_is() -> None:
    write(
        "tools:\n  a: {function: 'm:a'}\n  groups:\n    no-name: {tools: [a]}\n    empty: {tools: []}\n"
        "egress: {private_hosts: ['h:80', 'h/path']}\nmemory: {window: 9}\n"
    )
    found = draft_settings("app.yaml")
    assert (list(found.settings.tools.by_name), found.settings.memory.window) == (["a"], 9)
    assert [str(each).split(". ")[0] for each in found.problems] == [
        "app.yaml:4: tools.groups.no-name: a group's name is 1-64 letters, digits or _",
        "app.yaml:5: tools.groups.empty.tools: List should have at least 1 item after validation, not 0",
        "app.yaml:6: egress.private_hosts.1: neither host nor host:port",
    ]


def test_a_key_that_stands_twice_is_a_problem_and_not_silently_the_last_one() -> None:
    first, second = "tools:\n  a: {function: 'm:f'}\n", "tools:\n  b: {function: 'm:g'}\n"
    repeated = f"model: {{name: offline}}\n{first}memory: {{window: 3, window: 4}}\n{second}"
    found = lines(write(repeated))
    assert any(":5: tools: the key stands twice, first in line 2." in line for line in found), found
    assert any(":4: memory.window: the key stands twice, first in line 4." in line for line in found), found
    anchored = "tools:\n  a: &same {function: 'm:f', attempts: 1}\n  b:\n    <<: *same\n    attempts: 2\n"
    assert lines(write(anchored)) == []
