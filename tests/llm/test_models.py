"""A name becomes a model; each problem that prevents it is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from langchain_core.language_models import FakeListChatModel
from pydantic import SecretStr, ValidationError

from serve_app.config import ModelSettings
from serve_app.errors import InvalidConfiguration
from serve_app.llm.models import build_model, find_model_problems
from serve_app.llm.offline import OfflineModel

if TYPE_CHECKING:
    from stub_server import Stub

TOOL = {
    "type": "function",
    "function": {
        "name": "order_query",
        "description": "Look up an order.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}


def _stub_settings(stub: Stub, name: str = "stub-model", **changed: object) -> ModelSettings:
    return ModelSettings.model_validate({"name": f"openai:{name}", "base_url": stub.url, **changed})


def test_offline_is_the_default_and_has_no_problems() -> None:
    model = build_model(ModelSettings())
    assert [type(link.model.inner) for link in model.candidates] == [OfflineModel]
    assert find_model_problems(ModelSettings()) == []


def test_the_offline_model_is_built_without_importing_langchain_or_a_provider() -> None:
    code = (
        "import sys; from serve_app.config import ModelSettings; from serve_app.llm.models import build_model; "
        "build_model(ModelSettings()); "
        "print([name for name in ('langchain', 'openai', 'langchain_openai') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert ran.stdout.strip() == "[]"


async def test_a_compatible_server_answers_and_counts_its_tokens(stub: Stub) -> None:
    reply = await build_model(_stub_settings(stub)).ainvoke("hello")
    assert reply.text == "Hello from the stub."
    assert reply.usage_metadata is not None
    assert (reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"]) == (11, 7)
    assert reply.response_metadata["model_name"] == "stub-model"


async def test_a_stream_comes_in_pieces_with_its_usage_at_the_end(stub: Stub) -> None:
    chunks = [chunk async for chunk in build_model(_stub_settings(stub, "drips")).astream("hello")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello ", "from ", "the ", "stub."]
    counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [each["output_tokens"] for each in counted] == [7]


@pytest.mark.parametrize("streaming", [False, True])
async def test_tools_are_bound_and_called_through_the_guard(stub: Stub, *, streaming: bool) -> None:
    bound = build_model(_stub_settings(stub)).bind_tools([TOOL])
    if streaming:
        whole = None
        async for chunk in bound.astream("where is OD-1?"):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        calls = whole.tool_calls
    else:
        calls = (await bound.ainvoke("where is OD-1?")).tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [("order_query", {"order_id": "OD-1"})]
    assert stub.seen[-1][1]["tools"][0]["function"]["name"] == "order_query"


async def test_a_server_with_a_base_url_and_no_key_is_never_sent_the_providers_own(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-belongs-to-openai")
    await build_model(_stub_settings(stub)).ainvoke("hello")
    assert "authorization" not in stub.seen[-1][0]


async def test_the_key_of_the_named_variable_is_sent(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-ours")
    await build_model(_stub_settings(stub, api_key_env="OUR_KEY")).ainvoke("hello")
    assert stub.seen[-1][0]["authorization"] == "Bearer sk-ours"


def test_the_providers_usual_variable_may_stand_in_dot_env() -> None:
    assert find_model_problems(ModelSettings(name="openai:gpt-4o"))
    Path(".env").write_text("OPENAI_API_KEY=sk-from-file\n", encoding="utf-8")
    assert find_model_problems(ModelSettings(name="openai:gpt-4o")) == []


async def test_the_temperature_is_sent_only_where_it_is_set(stub: Stub) -> None:
    await build_model(_stub_settings(stub)).ainvoke("hello")
    assert "temperature" not in stub.seen[-1][1]
    await build_model(_stub_settings(stub, temperature=0.5)).ainvoke("hello")
    assert stub.seen[-1][1]["temperature"] == 0.5


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        ("anthropic:claude-sonnet-4-5", "package", "pip install langchain-anthropic"),
        ("claude-sonnet-4-5", "package", "pip install langchain-anthropic"),
        ("openai:gpt-4o", "OPENAI_API_KEY", "Set it"),
        ("opnai:gpt-4o", "no provider", "Did you mean 'openai'?"),
        ("glm-4", "no provider", "provider:model"),
        ("", "no model", "provider:model"),
    ],
)
def test_what_is_wrong_with_a_model_is_reported_with_its_cure(name: str, what: str, fix: str) -> None:
    (found,) = find_model_problems(ModelSettings(name=name))
    assert found.where == "model.name"
    assert what in found.what
    assert fix in found.fix


def test_a_missing_variable_and_a_missing_package_are_reported_at_once() -> None:
    settings = ModelSettings(name="anthropic:claude-sonnet-4-5", api_key_env="NO_SUCH_VARIABLE")
    missing, package = find_model_problems(settings)
    assert missing.where == "model.api_key_env"
    assert "NO_SUCH_VARIABLE" in missing.what
    assert "package" in package.what
    with pytest.raises(InvalidConfiguration) as refused:
        build_model(settings)
    assert refused.value.problems == (missing, package)


def test_a_key_is_never_shown(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-top-secret")
    model = build_model(_stub_settings(stub, api_key_env="OUR_KEY"))
    assert "sk-top-secret" not in repr(model) + str(model.model_dump())
    assert "sk-top-secret" not in str(find_model_problems(ModelSettings(name="opnai:x", api_key_env="OUR_KEY")))


def test_every_problem_of_every_fallback_is_reported_with_its_place() -> None:
    fallbacks = [
        {"name": "offline"},
        {"name": "opnai:x"},
        {"name": "openai:x", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_VARIABLE"},
    ]
    settings = ModelSettings.model_validate({"name": " ", "fallbacks": fallbacks})
    found = find_model_problems(settings)
    assert [each.where for each in found] == [
        "model.name",
        "model.fallbacks.1.name",
        "model.fallbacks.2.api_key_env",
    ]
    with pytest.raises(InvalidConfiguration) as refused:
        build_model(settings)
    assert list(refused.value.problems) == found


def test_a_fallback_whose_key_is_missing_is_reported_with_the_setting_that_names_it() -> None:
    (found,) = find_model_problems(ModelSettings.model_validate({"fallbacks": [{"name": "openai:gpt-4o"}]}))
    assert found.where == "model.fallbacks.0.name"
    assert "model.fallbacks.0.api_key_env" in found.fix


async def test_each_model_of_a_chain_has_its_own_endpoint_key_and_temperature(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-ours")
    monkeypatch.setenv("THEIR_KEY", "sk-theirs")
    fallback = {"name": "openai:other", "base_url": stub.url, "api_key_env": "THEIR_KEY", "temperature": 0.5}
    chosen = _stub_settings(stub, "wrong-key", api_key_env="OUR_KEY", fallbacks=[fallback])
    await build_model(chosen).ainvoke("hello")
    (first, first_body), (second, fell_back) = stub.seen[-2:]
    assert (first["authorization"], second["authorization"]) == ("Bearer sk-ours", "Bearer sk-theirs")
    assert (first_body.get("temperature"), fell_back["temperature"]) == (None, 0.5)


class Parrot(FakeListChatModel):
    """A chat model of somebody else's package."""

    secret: SecretStr | None = None


async def test_a_model_may_be_any_class_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_SECRET", "sk-parrot")
    monkeypatch.setitem(sys.modules, "somebody.parrots", cast("Any", SimpleNamespace(Parrot=Parrot)))
    monkeypatch.setitem(sys.modules, "somebody", ModuleType("somebody"))
    settings = ModelSettings(
        name="somebody.parrots:Parrot", options={"responses": ["Hello."]}, options_env={"secret": "PARROT_SECRET"}
    )
    assert find_model_problems(settings) == []
    model = build_model(settings)
    assert (await model.ainvoke("hello")).text == "Hello."
    assert cast("Parrot", model.candidates[0].model.inner).secret == SecretStr("sk-parrot")


def test_a_class_that_cannot_be_imported_is_reported_before_the_start() -> None:
    for name, what in (
        ("no_such.module:Parrot", "there is no module no_such"),
        ("langchain_core.messages:Parrot", "has no class Parrot"),
        ("langchain_core.messages:AIMessage", "is no BaseChatModel"),
    ):
        (found,) = find_model_problems(ModelSettings(name=name))
        assert (found.where, what in found.what) == ("model.name", True), found
    (unset,) = find_model_problems(
        ModelSettings(name="no_such.module:Parrot", options_env={"secret": "NO_SUCH_VARIABLE"})
    )
    assert "NO_SUCH_VARIABLE" in unset.what


def test_a_secret_has_no_place_in_the_settings_of_a_model() -> None:
    for name, changed in (
        ("api_key_env", {"extra_headers": {"Authorization": "Bearer x"}}),
        ("options_env", {"name": "somebody.parrots:Parrot", "options": {"api_key": "x"}}),
        ("extra_body", {"name": "openai:x", "options": {"n": 1}}),
    ):
        with pytest.raises(ValidationError, match=name):
            ModelSettings.model_validate({"name": "openai:x", **changed})


async def test_what_the_settings_add_to_a_request_is_sent(stub: Stub) -> None:
    more = {"top_p": 0.5, "seed": 7, "max_tokens": 9, "reasoning_effort": "low"}
    settings = _stub_settings(stub, extra_body={"enable_thinking": False}, extra_headers={"X-Team": "desk"}, **more)
    await build_model(settings).ainvoke("hello")
    headers, body = stub.seen[-1]
    assert {name: body[name] for name in more} == more
    assert (body["enable_thinking"], headers["x-team"], "stream" in body) == (False, "desk", False)
    await build_model(_stub_settings(stub, stream="always", stream_usage=False)).ainvoke("hello")
    assert (stub.seen[-1][1]["stream"], "stream_options" in stub.seen[-1][1]) == (True, False)


async def test_a_model_without_tools_is_sent_none(stub: Stub) -> None:
    tools = [{"type": "function", "function": {"name": "order_query", "parameters": {"type": "object"}}}]
    await build_model(_stub_settings(stub, tools=False)).bind_tools(tools).ainvoke("hello")
    assert "tools" not in stub.seen[-1][1]


async def test_the_profile_decides_what_the_settings_leave_open(stub: Stub) -> None:
    for profile, field in (("openai", "max_completion_tokens"), ("vllm", "max_tokens")):
        await build_model(_stub_settings(stub, profile=profile, max_tokens=9)).ainvoke("hello")
        assert stub.seen[-1][1][field] == 9


def test_every_example_of_a_model_in_the_shipped_configuration_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = (Path(__file__).parents[2] / "configs" / "local.yaml").read_text(encoding="utf-8")
    lines = shipped.partition("model:")[2].partition("\nagent:")[0].splitlines()
    written = "\n".join(line.removeprefix("  #   ") if line.startswith("  #   ") else "---" for line in lines)
    examples = [each for each in yaml.safe_load_all(written) if isinstance(each, dict)]
    models = [each for each in examples if str(each["name"]).startswith("openai:")]
    assert len(models) == 8
    for each in models:
        if "api_key_env" in each:
            monkeypatch.setenv(each["api_key_env"], "sk-x")
        assert find_model_problems(ModelSettings.model_validate(each)) == [], each
