"""A chat model of LangChain over one OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import Field, PrivateAttr, SecretStr

from serve_app.llm.openai_compatible.endpoint_profile import EndpointProfile, find_profile
from serve_app.llm.openai_compatible.message_conversion import (
    encode_body,
    last_chunk,
    text_chunk,
    to_request_messages,
    whole_message,
)
from serve_app.llm.openai_compatible.provider_error import ProviderError, ReplyUnreadable
from serve_app.llm.openai_compatible.reply_decoder import ProviderReply, ReplyDecoder, ReplyDelta
from serve_app.llm.openai_compatible.transport import Transport, drain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.tools import BaseTool

OPENAI_URL = "https://api.openai.com/v1"
REFUSED = (400, 422)
"""Statuses of a provider that refuses a field of the request."""


class OpenAICompatibleModel(BaseChatModel):
    """Calls `/chat/completions` of one endpoint.

    Streamed or whole, the same reply becomes the same message.

    It retries nothing and raises `ProviderError` or one of its kinds. A tool call whose arguments cannot be read
    becomes an `invalid_tool_call`, its `args` the raw text as a JSON string. Calls of a reply that was cut off are left
    out and counted in `response_metadata["cut_calls"]`.
    """

    model: str
    base_url: str | None = None
    """Up to and without `/chat/completions`; None is OpenAI's own."""
    api_key: SecretStr | None = None
    """None sends no Authorization header."""
    timeout_s: float = 60.0
    """For the whole call, its stream included; connecting takes at most 10 s of it."""
    endpoint_profile: EndpointProfile | None = None
    """None: by the host of `base_url`. (LangChain has another field `profile`.)"""
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    reasoning_effort: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields of each request's body; they replace all others."""
    extra_headers: dict[str, str] = Field(default_factory=dict)
    stream_usage: bool | None = None
    """Whether a stream requests its usage; None: as the profile says."""
    stream_always: bool = False
    """Whether a stream is requested even if the caller wants a whole message."""

    _dialect: EndpointProfile = PrivateAttr()
    _transport: Transport = PrivateAttr()
    _usage_refused: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._dialect = self.endpoint_profile or find_profile(self.base_url, self.model)
        headers = dict(self.extra_headers)
        if self.api_key is not None:
            headers.setdefault("Authorization", f"Bearer {self.api_key.get_secret_value()}")
        url = (self.base_url or OPENAI_URL).rstrip("/") + "/chat/completions"
        self._transport = Transport(url, headers, self.timeout_s)

    @property
    def _llm_type(self) -> str:
        return "openai-compatible"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model, "base_url": self.base_url, "temperature": self.temperature}

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002  (a whole message has no tokens)
        **kwargs: Any,
    ) -> ChatResult:
        stream = self.stream_always or self._dialect.stream_only
        body = self._body(messages, stop or self.stop, kwargs, stream=stream)
        async for part in self._request(body):
            if isinstance(part, ProviderReply):
                info = {"finish_reason": part.finish_reason}
                message = whole_message(part, self.model)
                return ChatResult(
                    generations=[ChatGeneration(message=message, generation_info=info)],
                    llm_output={"model_name": part.model or self.model},
                )
        raise ReplyUnreadable("no reply came")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = self._body(messages, stop or self.stop, kwargs, stream=True)
        async with aclosing(self._request(body)) as parts:
            async for part in parts:
                if isinstance(part, ReplyDelta):
                    chunk = ChatGenerationChunk(message=text_chunk(part))
                else:
                    info = {"finish_reason": part.finish_reason}
                    chunk = ChatGenerationChunk(message=last_chunk(part, self.model), generation_info=info)
                if run_manager is not None and run_manager.handlers:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  (likewise)
        **kwargs: Any,
    ) -> ChatResult:
        """Run the call in its own event loop: for scripts and tests only."""
        return asyncio.run(self._agenerate(messages, stop, None, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Stream from its own event loop: for scripts and tests only."""
        with asyncio.Runner() as runner:
            parts = self._astream(messages, stop, None, **kwargs)
            while (chunk := runner.run(_next(parts))) is not None:
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _request(self, body: dict[str, Any]) -> AsyncGenerator[ReplyDelta | ProviderReply, None]:
        """Yield the pieces of the reply, then the reply.

        Repeats the request without `stream_options` if the endpoint refuses them.
        """
        while True:
            decoder = ReplyDecoder(accepts_done_as_end=self._dialect.accepts_done_as_end)
            try:
                async with self._transport.post(encode_body(body)) as response:
                    try:
                        async for data in response.content.iter_any():
                            for delta in decoder.feed(data):
                                yield delta
                            if decoder.done:
                                await drain(response)
                                break
                    except (TimeoutError, aiohttp.ClientError):
                        if not decoder.finished:  # all that is missing after a finish_reason is the usage
                            raise
                break
            except ProviderError as error:
                if not self._refuses_stream_options(body, error):
                    raise
                del body["stream_options"]
        rest, reply = decoder.close()
        if rest.text or rest.reasoning:
            yield rest
        yield reply

    def _refuses_stream_options(self, body: dict[str, Any], error: ProviderError) -> bool:
        refuses = "stream_options" in body and error.status in REFUSED and "stream_options" in error.text
        self._usage_refused = self._usage_refused or refuses
        return refuses

    def _body(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any], *, stream: bool
    ) -> dict[str, Any]:
        dialect = self._dialect
        options = dict(options)
        max_tokens = options.pop("max_tokens", self.max_tokens)
        fields: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            dialect.max_tokens_field: max_tokens,
            "stop": stop,
            "reasoning_effort": self.reasoning_effort,
            **({} if stream else dialect.whole_extra_body),
            **dialect.extra_body,
            **self.extra_body,
            **options.pop("extra_body", {}),
            **options,
        }
        body: dict[str, Any] = {"model": self.model, "messages": to_request_messages(messages, dialect)}
        body.update((name, value) for name, value in fields.items() if value is not None)
        if stream:
            body["stream"] = True
            wanted = dialect.stream_usage if self.stream_usage is None else self.stream_usage
            if wanted and not self._usage_refused:
                body.setdefault("stream_options", {"include_usage": True})
        return body

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with these tools; `tool_choice`: a name, "auto", "none", "any" or OpenAI's."""
        written = [convert_to_openai_tool(each, strict=strict) for each in tools]
        if tool_choice:
            kwargs["tool_choice"] = _tool_choice(tool_choice)
        return self.bind(tools=written, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | Any]:
        """Return the model with replies by a schema: tool call, JSON schema or `json_mode`."""
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, strict=strict, **kwargs)
        response_format: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            described = convert_to_json_schema(schema, strict=strict)
            name = str(described.get("title", "answer"))
            form: dict[str, Any] = {"name": name, "schema": described}
            if strict is not None:
                form["strict"] = strict
            response_format = {"type": "json_schema", "json_schema": form}
        shown = {"kwargs": {"method": method, "strict": strict}, "schema": convert_to_openai_tool(schema)}
        bound = self.bind(response_format=response_format, ls_structured_output_format=shown, **kwargs)
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return bound | parser
        parsed = RunnablePassthrough.assign(
            parsed=lambda given: parser.invoke(given["raw"]), parsing_error=lambda _: None
        ).with_fallbacks([RunnablePassthrough.assign(parsed=lambda _: None)], exception_key="parsing_error")
        return RunnableMap(raw=bound) | parsed


async def _next(parts: AsyncIterator[ChatGenerationChunk]) -> ChatGenerationChunk | None:
    return await anext(parts, None)


def _tool_choice(wanted: str | dict[str, Any] | bool) -> str | dict[str, Any]:  # noqa: FBT001  (LangChain's own type)
    if wanted in ("any", True):
        return "required"
    if isinstance(wanted, str) and wanted not in ("auto", "none", "required"):
        return {"type": "function", "function": {"name": wanted}}
    return wanted if isinstance(wanted, (str, dict)) else "required"
