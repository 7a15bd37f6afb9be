"""How is a conversation read and deleted over HTTP?"""

from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.contexts import Contexts, patience_s, within
from serve_app.http.responses import json_response, refusals
from serve_app.ports import Agent
from serve_app.values import Session, SessionId, Value

PathSessionId = Annotated[SessionId, Path(description="The conversation's name.", examples=["s1"])]


class Latest(Value):
    """The query of `GET /agent/sessions/{session_id}`."""

    from pydantic import Field as _Field


def add_sessions(api: FastAPI, agent: Agent, contexts: Contexts) -> None:
    """`GET` and `DELETE /agent/sessions/{session_id}`."""
