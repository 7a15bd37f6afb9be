from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from listening import free_port

from serve_app.config import read_environment
from serve_app.deployments.embedded_stores import find_redis_server, lock_data_folder
from serve_app.preflight import find_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a team's modules in it, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in read_environment():
        if name.startswith("SERVE_APP_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    return tmp_path


def found(text: str, *, stopped: bool = False) -> list[str]:
    """The problems of a configuration, as they are printed."""
    Path("app.yaml").write_text(text, encoding="utf-8")
    problems = [str(problem) for problem in find_problems("app.yaml", stopped=stopped)]
    assert all("\n" not in line and "Traceback" not in line for line in problems)
    return problems


@contextmanager
def redis_with(*options: str) -> Iterator[int]:
    """A Redis of its own; its port."""
    port = free_port()
    command = [str(find_redis_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


class Refusing(grpc.ServerInterceptor):
    """Answers as a Milvus does that does not take the token: to every call, or to those that need it."""

    def __init__(self, method: str) -> None:
        self._method = method

    def intercept_service(self, continuation: object, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
            if details.method.endswith(self._method):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def refusing_milvus(method: str) -> Iterator[int]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, interceptors=[Refusing(method)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait(5)


def test_the_shipped_laptop_configuration_has_no_problem() -> None:
    assert find_problems(ROOT / "configs" / "local.yaml") == ()


def test_what_keeps_a_fallback_from_being_asked_is_told_once_at_its_line() -> None:
    problems = found(
        """\
model:
  name: offline
  timeout_s: 30
  fallbacks:
    - {name: 'openai:a', base_url: 'http://127.0.0.1:9/v1', api_key_env: NOT_SET_KEY}
    - {name: 'opnai:b'}
agent: {turn_timeout_s: 30}
milvus: http://127.0.0.1:1
redis: redis://127.0.0.1:1
"""
    )
    assert [line for line in problems if "model" in line] == [
        (
            "app.yaml:5: model.fallbacks.0.api_key_env: the environment variable NOT_SET_KEY is not set. "
            "Set it, or put it into .env"
        ),
        "app.yaml:6: model.fallbacks.1.name: opnai:b names no provider that is known. Did you mean 'openai'?",
        (
            "app.yaml:3: model.timeout_s: a model that hangs leaves no time for its fallbacks: a turn has 30 s. "
            "Make it at most half of agent.turn_timeout_s"
        ),
    ]


def test_problems_of_every_kind_are_told_at_once(here: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "broken.py").write_text("1 / 0\n")
    monkeypatch.setenv("SERVE_APP_MODEL", "anthropic:claude-sonnet-4-5")
    monkeypatch.setenv("SERVE_APP_MODEL_BASE_URL", "nowhere")
    monkeypatch.setenv("SERVE_APP_MODEL_API_KEY", "")
    monkeypatch.setenv("SERVE_APP_DATA_DIR", "/dev/null/data")
    problems = found(
        f"""\
modle: {{name: offline}}
redis: redis://127.0.0.1:{free_port}/0
milvus: embedded
tools:
  a: {{function: "broken:tool"}}
  order_query: {{function: "serve_app.tools.orders:order_query"}}
knowledge:
  mode: hybrid
  embedding: {{model: "cohere:embed", api_key_env: COHERE_KEY}}
"""
    )
    beginnings = [
        "SERVE_APP_MODEL_BASE_URL: not an http:// or https:// URL.",
        "app.yaml:1: modle: unknown key. Did you mean 'model'?",
        "SERVE_APP_MODEL_API_KEY: the environment variable SERVE_APP_MODEL_API_KEY is empty.",
        "app.yaml:9: knowledge.embedding.api_key_env: the environment variable COHERE_KEY is not set.",
        "SERVE_APP_MODEL: the package of anthropic:claude-sonnet-4-5 is not installed. pip install langchain-anthropic",
        "app.yaml:9: knowledge.embedding.model: the package of cohere:embed is not installed.",
        "app.yaml:5: tools.a: broken:tool does not import (ZeroDivisionError: division by zero).",
        f"app.yaml: orders.file: {here}/orders.json cannot be read (No such file or directory).",
        "app.yaml:2: redis.url: Redis does not answer (",
        "/dev/null/data: the data folder cannot be used: /dev/null is not a writable folder.",
    ]
    assert len(problems) == len(beginnings), problems
    for beginning in beginnings:
        assert any(line.startswith(beginning) for line in problems), beginning


def test_a_problem_that_two_checks_see_is_told_once() -> None:
    problems = found("model: {name: 'openai:glm-4', api_key_env: NOT_SET_KEY}\n")
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def tool(number: str) -> str:\n    'Look up.'\n", "is not an async function"),
        ("async def tool(number: str) -> str: ...\n", "has no docstring"),
        ("async def tool(number) -> str:\n    'Look up.'\n", "its parameter number has no type"),
        ("import nowhere_to_be_found\n", "does not import (ModuleNotFoundError: No module named"),
        ("async def other(number: str) -> str:\n    'Look up.'\n", "does not import (AttributeError:"),
        ("def tool(:\n", "does not import (SyntaxError:"),
    ],
)
def test_a_tool_that_cannot_be_used_is_told(source: str, what: str, request: pytest.FixtureRequest) -> None:
    module = f"team_{abs(hash(request.node.name))}"
    Path(f"{module}.py").write_text(source)
    (line,) = found(f"tools: {{mine: {{function: '{module}:tool'}}}}\n")
    assert line.startswith("app.yaml:1: tools.mine: ")
    assert what in line


@pytest.mark.parametrize(
    ("content", "what"),
    [("[1, 2]", "does not map order ids to states"), ('{"OD-1": 3}', "does not map"), ("{", "is not JSON (")],
)
def test_a_malformed_file_of_orders_is_told(content: str, what: str) -> None:
    Path("orders.json").write_text(content)
    tool = "tools: {order_query: {function: 'serve_app.tools.orders:order_query'}}\n"
    (line,) = found(tool)
    assert "orders.file: " in line
    assert what in line
    assert found(tool + "orders: {url: 'http://127.0.0.1:9/orders'}\n") == []
    assert found("") == [], "without the tool nobody reads the file"


@pytest.mark.parametrize(
    ("embedding", "what"),
    [
        ("model: 'cohere:x', api_key_env: K", "model: the package of cohere:x is not installed."),
        ("model: 'zhipu:x', api_key_env: K", "model: Provider 'zhipu' is not supported."),
        ("model: 'embedding-3', api_key_env: K", "model: embedding-3 names no provider."),
        ("model: 'openai:embedding-3'", "model: openai:embedding-3 cannot be constructed (Missing credentials."),
        ("factory: 'json:nothing'", "factory: json:nothing does not import (AttributeError:"),
        ("factory: 'json:__doc__'", "factory: json:__doc__ is not a function."),
    ],
)
def test_an_embedding_that_cannot_be_used_is_told(embedding: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", "a key")
    (line,) = found(f"knowledge: {{mode: dense, embedding: {{{embedding}}}}}\n")
    assert line.startswith(f"app.yaml:1: knowledge.embedding.{what}")


def test_an_embedding_that_can_be_used_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", "a key")
    assert found("knowledge: {mode: dense, embedding: {model: 'openai:embedding-3', api_key_env: K}}\n") == []
    assert found("knowledge: {mode: dense, embedding: {factory: 'json:dumps'}}\n") == []


def test_stores_that_answer_are_no_problem(redis_url: str, milvus_url: str) -> None:
    assert found(f"redis: {redis_url}\nmilvus: {milvus_url}\n") == []


def test_stores_that_do_not_answer_are_told(free_port: int) -> None:
    redis, milvus = found(f"redis: redis://127.0.0.1:{free_port}\nmilvus: http://127.0.0.1:{free_port}\n")
    assert redis.startswith("app.yaml:1: redis.url: Redis does not answer (")
    assert milvus.startswith("app.yaml:2: milvus.url: Milvus does not answer (")


def test_servers_that_accept_and_stay_silent_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.stores.store_checks.CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        redis, milvus = found(f"redis: redis://127.0.0.1:{port}\nmilvus: http://127.0.0.1:{port}\n")
    assert "Redis does not answer (Timeout" in redis
    assert "Milvus does not answer (" in milvus


def test_a_wrong_password_is_told_apart_from_a_redis_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_PASSWORD", "wrong")
    with redis_with("--requirepass", "right") as port:
        section = f"redis: {{url: 'redis://127.0.0.1:{port}', password_env: CACHE_PASSWORD}}\n"
        (wrong,) = found(section)
        (without,) = found(f"redis: redis://127.0.0.1:{port}\n")
        monkeypatch.setenv("CACHE_PASSWORD", "right")
        assert found(section) == []
    for line in (wrong, without):
        assert "redis.url: Redis answers, but refuses the password." in line


def test_a_wrong_token_is_told_apart_from_a_milvus_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORS_TOKEN", "root:wrong")
    with refusing_milvus("") as every_call, refusing_milvus("ShowCollections") as one_call:
        for name, port in (("every.yaml", every_call), ("one.yaml", one_call)):
            Path(name).write_text(f"milvus: {{url: 'http://127.0.0.1:{port}', token_env: VECTORS_TOKEN}}\n")
        code = "print(*find_problems('every.yaml'), *find_problems('one.yaml'), sep='\\n')"
        command = [sys.executable, "-c", f"from serve_app.preflight import find_problems; {code}"]
        process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    refusal = "milvus.url: Milvus answers, but refuses the token."
    assert [refusal in line for line in process.stdout.splitlines()] == [True, True], process.stdout
    assert process.stderr == "", "pymilvus logs a traceback of its own"


def test_the_data_folder_must_be_free_where_the_service_is_stopped(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = lock_data_folder(here / ".serve_app", timeout_s=0)
    with held:
        (line,) = found("", stopped=True)
        assert line.startswith(f"{here}/.serve_app: the data folder is held by another service, process ")
        assert found("") == [], "the builder is asked for a new version of a service that runs"
        assert found("redis: embedded\nmilvus: 'http://127.0.0.1:1'\n", stopped=True)[-1] == line
    assert found("", stopped=True) == []


def test_looking_makes_no_data_folder(here: Path) -> None:
    assert found("", stopped=True) == []
    assert not (here / ".serve_app").exists()


def test_an_unreadable_env_file_is_a_problem_too(here: Path) -> None:
    (here / ".env").write_bytes(b"\xff\xfe")
    (line,) = found("")
    assert line.startswith(".env: cannot be read")


def test_a_name_that_stands_for_no_tool_is_told() -> None:
    Path("team_names.py").write_text("async def tool(number: str) -> str:\n    'Look up.'\n")
    problems = found(
        """\
tools:
  a: {function: "team_names:tool", fallback: b}
  b: {function: "team_names:tool", effect: effect}
  c: {function: "team_names:tool", fallback: c}
  d: {function: "team_names:tool", fallback: ghost}
  e: {http: {url: "http://h/{id}", description: x}, attempts: 1}
  groups:
    one: {tools: [a, ghost]}
    two: {tools: [b, a]}
"""
    )
    assert [line.split(". ")[0] for line in problems] == [
        "app.yaml:6: tools.e.http.parameters: {id} stands in the URL, but is no required parameter",
        "app.yaml:2: tools.a.fallback: b has an effect, so that it cannot be a fallback",
        "app.yaml:4: tools.c.fallback: a tool cannot be its own fallback",
        "app.yaml:5: tools.d.fallback: there is no tool ghost",
        "app.yaml:8: tools.groups.one.tools.1: there is no tool ghost",
        "app.yaml:9: tools.groups.two.tools.1: a is already in the group one",
    ]


def test_a_live_tool_that_does_not_exist_is_told() -> None:
    problems = found(
        "tools: {order_query: {function: 'my:f'}}\ncache: {ttl_s: 60, live_tools: [order_query, order_qurey]}\n"
    )
    assert [line for line in problems if "cache" in line] == [
        "app.yaml:2: cache.live_tools.1: there is no tool order_qurey. Name a tool of the section tools"
    ]
