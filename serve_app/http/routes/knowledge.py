"""How is the knowledge base filled, listed and emptied over HTTP?"""

from typing import Annotated

from fastapi import Body, FastAPI, Path, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http import examples
from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.ports import Retriever
from serve_app.values import Document, DocumentList, DocumentSummary, IndexingResult, Value

ADD_S = 300.0
"""For one batch of documents: an embedding model may take minutes over it."""

_DocumentId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:@-]{1,128}$", description="As the list tells it.")]


class Batch(Value):
    """The body of `POST /knowledge/documents`."""

    documents: list[Document] = Field(min_length=1, max_length=256)


class BatchResult(Value):
    """What became of each document of the batch, in its order."""

    documents: list[IndexingResult]


class Page(Value):
    """Which part of the list is wanted."""

    offset: int = Field(default=0, ge=0, le=1_000_000, description="Documents to skip.")
    limit: int = Field(default=100, ge=1, le=1000, description="Documents to list.")


def add_knowledge(api: FastAPI, retriever: Retriever, contexts: RequestContexts) -> None:
    """The routes below `/knowledge/documents`."""

    @api.post(
        "/knowledge/documents",
        tags=["Knowledge"],
        summary="Add documents",
        response_model=BatchResult,
        response_description="One result per document, in the order sent; look at each `status`.",
        responses=body_refusals(),
    )
    async def add(request: Request, batch: Annotated[Batch, Body(openapi_examples=examples.BATCHES)]) -> Response:
        """Index up to 256 documents, each replacing what its `source` held before.

        A document that is already there word for word is `unchanged`. One that cannot be indexed is `failed`, with the
        reason, and does not stop the others: the response is 200 all the same. Sending a batch again does no harm.
        """
        context = contexts.of(request, timeout_s=max(ADD_S, contexts.turn_timeout_s))
        async with time_limit(answer_timeout_s(context)):
            return json_response(BatchResult(documents=await retriever.add(context, batch.documents)))

    @api.get(
        "/knowledge/documents",
        tags=["Knowledge"],
        summary="List the documents",
        response_model=DocumentList,
        response_description="A page of them, by source; `total` and `passages` count all.",
        responses=refusals(),
    )
    async def documents(request: Request, page: Annotated[Page, Query()]) -> Response:
        """The documents without their text."""
        context = contexts.of(request)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await retriever.documents(context, page.offset, page.limit))

    @api.delete(
        "/knowledge/documents/{document_id}",
        tags=["Knowledge"],
        summary="Remove a document",
        response_model=DocumentSummary,
        response_description="What was removed.",
        responses=refusals(404),
    )
    async def remove(request: Request, document_id: _DocumentId) -> Response:
        """Its passages are found no longer."""
        context = contexts.of(request)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await retriever.remove(context, document_id))
