"""Which values cross a boundary between processes?"""

from serve_app.values.access import SCOPES, Caller, Limits, Scope, Tenant
from serve_app.values.faults import Fault, FaultList, FaultMode, FaultTarget
from serve_app.values.feedback import Feedback, FeedbackList, Rating, Vote
from serve_app.values.health import Check
from serve_app.values.knowledge import Catalogue, Document, DocumentSummary, Found, Indexed, Passage
from serve_app.values.lines import RunLine, RunLines
from serve_app.values.runs import Cancelled, Claim, Event, EventData, Run, RunStarted, RunStatus, Token, TurnEnd
from serve_app.values.sessions import Exchange, Message, Session, SessionSize, SessionSizes
from serve_app.values.tools import (
    CallStatus,
    Effect,
    IdempotencyKey,
    Sensitive,
    ToolCall,
    ToolRequest,
    ToolResult,
    ToolSpec,
)
from serve_app.values.turns import Answer, CacheUse, ChatRequest, Citation, Context, Failed, Failure, SessionId, Usage
from serve_app.values.value import Value

__all__ = [
    "SCOPES",
    "Answer",
    "CacheUse",
    "CallStatus",
    "Caller",
    "Cancelled",
    "Catalogue",
    "ChatRequest",
    "Check",
    "Citation",
    "Claim",
    "Context",
    "Document",
    "DocumentSummary",
    "Effect",
    "Event",
    "EventData",
    "Exchange",
    "Failed",
    "Failure",
    "Fault",
    "FaultList",
    "FaultMode",
    "FaultTarget",
    "Feedback",
    "FeedbackList",
    "Found",
    "IdempotencyKey",
    "Indexed",
    "Limits",
    "Message",
    "Passage",
    "Rating",
    "Run",
    "RunLine",
    "RunLines",
    "RunStarted",
    "RunStatus",
    "Scope",
    "Sensitive",
    "Session",
    "SessionId",
    "SessionSize",
    "SessionSizes",
    "Tenant",
    "Token",
    "ToolCall",
    "ToolRequest",
    "ToolResult",
    "ToolSpec",
    "TurnEnd",
    "Usage",
    "Value",
    "Vote",
]
