"""A LangChain chat model for any endpoint that speaks OpenAI's chat completions.

It does one thing: a conversation becomes a request, and the bytes of the answer become a message. It has no retries, no
cache and no limits of its own; whoever uses it adds those. It costs a tenth of the processor time of the OpenAI SDK.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCall, ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PrivateAttr, SecretStr

from serve_app.llm.openai_compatible.errors import (
    ProviderError,
    ReplyUnreadable,
    error_of,
    retry_after_s,
)
from serve_app.llm.openai_compatible.profile import OPENAI_URL, PROFILES, Profile
from serve_app.llm.openai_compatible.reply import Piece, ReplyAssembler
from serve_app.llm.openai_compatible.request import REASONING, body_of, messages_of
from serve_app.llm.openai_compatible.sse import EventReader
from serve_app.llm.openai_compatible.transport import posted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence

    import aiohttp
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    from serve_app.llm.openai_compatible.calls import Call
    from serve_app.llm.openai_compatible.reply import Usage

MAX_BODY_BYTES = 16_000_000
MAX_ERROR_BYTES = 100_000
T = TypeVar("T")

REDIRECT = 300
"""None is followed: the key would go wherever it leads."""


class OpenAICompatibleModel(BaseChatModel):
    """Asks one model of one endpoint; `endpoint` says how the endpoint differs from OpenAI's own.

    A call raises:
        ProviderError: the endpoint answered with an error; ReplyUnreadable or ReplyIncomplete where its answer is none.
        ConnectionError: there was no connection, or it broke.
        TimeoutError: the last byte did not come within `timeout_s`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    model: str
    base_url: str = OPENAI_URL
    api_key: SecretStr | None = None
    timeout_s: float = Field(default=30, gt=0, alias="timeout")
    """Seconds, for one call from its first byte to its last."""
    endpoint: InstanceOf[Profile] = PROFILES["generic"]
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = Field(default_factory=dict)
    """Fields of the request that win over all others."""
    extra_headers: Mapping[str, str] = Field(default_factory=dict)
    stream_usage: bool | None = None
    """Whether a stream is asked to count its tokens; None does what the profile says."""
    stream_always: bool = False
    """Whether whole replies, too, are asked for as a stream."""
    _refuses_stream_options: bool = PrivateAttr(default=False)

    @property
    def _llm_type(self) -> str:
        return "openai-compatible"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, "temperature": self.temperature}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(ls_provider="openai", ls_model_name=self.model, ls_model_type="chat")
        for name, value in (
            ("ls_temperature", kwargs.get("temperature", self.temperature)),
            ("ls_max_tokens", kwargs.get("max_tokens", self.max_tokens)),
            ("ls_stop", stop or self.stop),
        ):
            if value is not None:
                params[name] = value  # type: ignore[literal-required]
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer the tools; `tool_choice` is `auto`, `none`, `any`, `required`, a tool's name, or OpenAI's own form."""
        written = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        names = {tool["function"]["name"] for tool in written if "function" in tool}
        if tool_choice in ("any", True):
            tool_choice = "required"
        elif isinstance(tool_choice, str) and tool_choice in names:
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        return self.bind(tools=written, **chosen, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Replies of a schema, by `method=` `function_calling` (the default), `json_schema` or `json_mode`."""
        method = kwargs.pop("method", "function_calling")
        strict = kwargs.pop("strict", None)
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if method not in {"json_schema", "json_mode"}:
            raise ValueError(f"method is {method!r}, and not function_calling, json_schema or json_mode")
        wanted: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            document = convert_to_json_schema(schema)
            inner = {"name": document.get("title", "reply"), "schema": document}
            wanted = {"type": "json_schema", "json_schema": inner if strict is None else {**inner, "strict": strict}}
        model = self.bind(
            response_format=wanted, ls_structured_output_format={"kwargs": {"method": method}, "schema": schema}
        )
        is_class = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser: Any = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
        if not include_raw:
            structured: Runnable[LanguageModelInput, Any] = model | parser
            return structured
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - `ainvoke` reports what this returns
        **kwargs: Any,
    ) -> ChatResult:
        reply = ReplyAssembler(self.endpoint.accepts_done_as_end)
        streaming = self.stream_always or bool(kwargs.pop("stream", False))
        text, reasoning = [], []
        async with aclosing(self._pieces(messages, stop, kwargs, reply, streaming=streaming)) as pieces:
            async for piece in pieces:
                text.append(piece.text)
                reasoning.append(piece.reasoning)
        last, calls = reply.end()
        message = AIMessage(
            content="".join(text) + last.text,
            additional_kwargs=_more("".join(reasoning) + last.reasoning, reply),
            tool_calls=[_valid(call, place) for place, call in enumerate(calls) if call.arguments is not None],
            invalid_tool_calls=[
                invalid_tool_call(name=call.name, args=call.written, id=_id(place))
                for place, call in enumerate(calls)
                if call.arguments is None
            ],
            response_metadata=self._metadata(reply),
            usage_metadata=_usage(reply.usage),
            id=reply.reply_id or None,
        )
        generation = ChatGeneration(message=message, generation_info={"finish_reason": reply.finish_reason})
        return ChatResult(generations=[generation])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        kwargs.pop("stream", None)
        reply = ReplyAssembler(self.endpoint.accepts_done_as_end)
        async with aclosing(self._pieces(messages, stop, kwargs, reply, streaming=True)) as pieces:
            async for piece in pieces:
                if piece.text or piece.reasoning:
                    more = {REASONING: piece.reasoning} if piece.reasoning else {}
                    shown = AIMessageChunk(content=piece.text, additional_kwargs=more, id=reply.reply_id or None)
                    chunk = ChatGenerationChunk(message=shown)
                    if run_manager:
                        await run_manager.on_llm_new_token(piece.text, chunk=chunk)
                    yield chunk
        last, calls = reply.end()
        message = AIMessageChunk(
            content=last.text,
            additional_kwargs=_more(last.reasoning, reply),
            tool_call_chunks=[_chunk(call, place) for place, call in enumerate(calls)],
            response_metadata=self._metadata(reply),
            usage_metadata=_usage(reply.usage),
            id=reply.reply_id or None,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=message, generation_info={"finish_reason": reply.finish_reason})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - likewise
        **kwargs: Any,
    ) -> ChatResult:
        """The same for scripts and tests that have no event loop: it makes one in a thread of its own."""
        return _in_a_loop(self._agenerate(messages, stop, None, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        async def collected() -> list[ChatGenerationChunk]:
            return [chunk async for chunk in self._astream(messages, stop, None, **kwargs)]

        for chunk in _in_a_loop(collected()):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _pieces(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        reply: ReplyAssembler,
        *,
        streaming: bool,
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of one reply; without `stream_options` where the endpoint is found to refuse them."""
        fields = self._fields(messages, stop, kwargs, streaming=streaming)
        try:
            async for piece in self._asked(fields, reply):
                yield piece
        except ProviderError as error:
            if "stream_options" not in fields or error.status is None or "stream_options" not in error.text:
                raise
            self._refuses_stream_options = True
            del fields["stream_options"]
            async for piece in self._asked(fields, reply):
                yield piece

    def _fields(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, streaming: bool
    ) -> dict[str, Any]:
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            self.endpoint.max_tokens_field: self.max_tokens,
            "stop": stop or self.stop,
            "reasoning_effort": self.reasoning_effort,
        }
        fields: dict[str, Any] = {"model": self.model, "messages": messages_of(messages, self.endpoint)}
        fields |= {name: value for name, value in given.items() if value is not None}
        fields |= {name: value for name, value in kwargs.items() if value is not None and not name.startswith("ls_")}
        if "max_tokens" in kwargs and self.endpoint.max_tokens_field != "max_tokens":
            fields[self.endpoint.max_tokens_field] = fields.pop("max_tokens")
        fields |= self.endpoint.extra_body
        if streaming:
            fields["stream"] = True
            counting = self.endpoint.stream_usage if self.stream_usage is None else self.stream_usage
            if counting and not self._refuses_stream_options:
                fields["stream_options"] = {"include_usage": True}
        else:
            fields |= self.endpoint.whole_body
        fields.update(self.extra_body)
        return fields

    async def _asked(self, fields: dict[str, Any], reply: ReplyAssembler) -> AsyncGenerator[Piece, None]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        url = self.base_url.rstrip("/") + "/chat/completions"
        async with posted(url, body_of(fields), {**headers, **self.extra_headers}, self.timeout_s) as response:
            if response.status >= REDIRECT:
                raise await _refusal(response)
            if fields.get("stream") or response.content_type == "text/event-stream":
                async for piece in _events(response, reply):
                    yield piece
            else:
                yield reply.take(_loaded(await _body(response)), whole=True)

    def _metadata(self, reply: ReplyAssembler) -> dict[str, Any]:
        metadata: dict[str, Any] = {"model_name": reply.model or self.model, "model_provider": "openai"}
        if reply.finish_reason:
            metadata["finish_reason"] = reply.finish_reason
        if reply.begun_calls and not reply.is_complete:
            metadata["cut_calls"] = reply.begun_calls
        return metadata


async def _events(response: aiohttp.ClientResponse, reply: ReplyAssembler) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream; of a whole body, where the endpoint does not stream."""
    reader, first = EventReader(), True
    size = 0
    async for data in response.content.iter_any():
        size += len(data)
        if size > MAX_BODY_BYTES:
            raise ReplyUnreadable("the reply is too long")
        if first and data.strip():
            first = False
            if data.lstrip()[:1] in (b"{", b"["):
                rest = await _body(response)
                yield reply.take(_loaded(data + rest), whole=True)
                return
        for name, event in reader.feed(data):
            if piece := _event(name, event, reply):
                yield piece
            if reply.done:
                return
    for name, event in reader.finish():
        if piece := _event(name, event, reply):
            yield piece


def _event(name: str, data: str, reply: ReplyAssembler) -> Piece | None:
    if not data.strip():
        return None
    if data.strip() == "[DONE]":
        reply.done = True
        return None
    if name == "error":
        raise error_of({"error": _loaded_or_text(data)}) or ProviderError(data)
    return reply.take(_loaded(data))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise ReplyUnreadable("the reply is too long")
    return bytes(body)


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    """The error of a response that is one."""
    text = (await response.content.read(MAX_ERROR_BYTES)).decode("utf-8", "replace")
    headers = {name.lower(): value for name, value in response.headers.items()}
    after_s = retry_after_s(headers)
    found = error_of(_loaded_or_text(text), response.status, after_s)
    return found or ProviderError(text or str(response.reason), response.status, "", after_s)


def _loaded(data: bytes | str) -> Any:
    try:
        return json.loads(data if isinstance(data, str) else data.decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError):
        raise ReplyUnreadable("no JSON") from None


def _loaded_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _id(place: int) -> str:
    """The model's own ids may come twice, be empty or too long: these are for this reply only."""
    return f"call_{place}"


def _valid(call: Call, place: int) -> ToolCall:
    return tool_call(name=call.name, args=call.arguments or {}, id=_id(place))


def _chunk(call: Call, place: int) -> ToolCallChunk:
    """A whole call; arguments that are no object are a JSON string, of which LangChain makes an invalid call."""
    written = json.dumps(call.written if call.arguments is None else call.arguments)
    return tool_call_chunk(name=call.name, args=written, id=_id(place), index=place)


def _more(reasoning: str, reply: ReplyAssembler) -> dict[str, Any]:
    found = {REASONING: reasoning, "refusal": reply.refusal}
    return {name: value for name, value in found.items() if value}


def _usage(usage: Usage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    counted = UsageMetadata(
        input_tokens=usage.read, output_tokens=usage.written, total_tokens=usage.read + usage.written
    )
    if usage.cached:
        counted["input_token_details"] = InputTokenDetails(cache_read=usage.cached)
    if usage.reasoned:
        counted["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoned)
    return counted


def _in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
