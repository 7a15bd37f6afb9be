"""The routes below `/knowledge/documents`: add, list and remove documents."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.http.dependencies import ContextDep, NewContextDep, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import DOCUMENT_BATCHES, body_error_responses, error_responses
from serve_app.http.request_context import answer_timeout_s, time_limit
from serve_app.values import Document, DocumentList, DocumentSummary, IndexingResult, Value

INDEXING_S = 300.0
"""The time limit of one batch of documents: an embedding model may need minutes for it."""

router = APIRouter(route_class=JsonRoute, tags=["Knowledge"])


class DocumentBatch(Value):
    """The body of `POST /knowledge/documents`."""

    documents: list[Document] = Field(min_length=1, max_length=256)


class DocumentBatchResult(Value):
    """The outcome of each document of a batch, in its order."""

    documents: list[IndexingResult]


class DocumentsQuery(Value):
    """The query of `GET /knowledge/documents`: a page of the list."""

    offset: int = Field(default=0, ge=0, le=1_000_000, description="Documents to skip.")
    limit: int = Field(default=100, ge=1, le=1000, description="Documents to list.")


@router.post(
    "/knowledge/documents",
    summary="Add documents",
    response_model=DocumentBatchResult,
    response_description="One result per document, in the order sent; look at each `status`.",
    responses=body_error_responses(),
)
async def add_documents(
    services: ServicesDep,
    new_context: NewContextDep,
    batch: Annotated[DocumentBatch, Body(openapi_examples=DOCUMENT_BATCHES)],
) -> Response:
    """Index up to 256 documents, each replacing what its `source` held before.

    A document that is already there word for word is `unchanged`. One that cannot be indexed is `failed`, with the
    reason, and does not stop the others: the response is 200 all the same. Sending a batch again does no harm.
    """
    context = new_context(min_timeout_s=INDEXING_S)
    async with time_limit(answer_timeout_s(context)):
        results = await services.retriever.add(context, batch.documents)
    return json_response(DocumentBatchResult(documents=results))


@router.get(
    "/knowledge/documents",
    summary="List the documents",
    response_model=DocumentList,
    response_description="A page of them, by source; `total` and `passages` count all.",
    responses=error_responses(),
)
async def list_documents(
    services: ServicesDep, context: ContextDep, query: Annotated[DocumentsQuery, Query()]
) -> Response:
    """List the documents, without their text."""
    return json_response(await services.retriever.documents(context, query.offset, query.limit))


@router.delete(
    "/knowledge/documents/{document_id}",
    summary="Remove a document",
    response_model=DocumentSummary,
    response_description="What was removed.",
    responses=error_responses(404),
)
async def remove_document(
    services: ServicesDep,
    context: ContextDep,
    document_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9._:@-]{1,128}$", description="As the list tells it.")],
) -> Response:
    """Remove a document and its passages."""
    return json_response(await services.retriever.remove(context, document_id))
