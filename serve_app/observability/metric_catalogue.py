"""Every metric of the service: name, kind, help text, labels and buckets.

Ray exports each as `ray_NAME`, and adds the labels `application`, `deployment` and `replica`. An observation costs a
few microseconds: make one per request or step, none per token.
"""

from __future__ import annotations

from serve_app.values import Metric

ANSWER_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""The objectives of 2 s and 5 s are among them."""
LOOKUP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""The retrieval objective of 0.5 s is among them."""
SIZE_BYTES = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)

TURNS = Metric(
    "serve_app_turns_total",
    "counter",
    "Turns that have ended; status is success, degraded, error or cancelled.",
    ("status", "variant"),
)
TURN_S = Metric(
    "serve_app_turn_seconds",
    "histogram",
    "From the registration of a turn's run to its end.",
    ("status", "variant"),
    ANSWER_S,
)
FIRST_TOKEN_S = Metric(
    "serve_app_first_token_seconds",
    "histogram",
    "From the registration of a streamed turn's run to the first token of its answer.",
    ("variant",),
    ANSWER_S,
)
QUEUE_WAIT_S = Metric(
    "serve_app_queue_wait_seconds",
    "histogram",
    "From the registration of a run until an agent began to work on it.",
    (),
    (0.005, 0.01, 0.025, *ANSWER_S),
)
IN_FLIGHT = Metric("serve_app_turns_in_flight", "gauge", "Turns in this process, those that wait included.")
OLDEST_S = Metric("serve_app_oldest_turn_seconds", "gauge", "Age of the oldest turn in this process; 0 without any.")
DEGRADED = Metric(
    "serve_app_degraded_total",
    "counter",
    "Answers made without a part: model, tool:NAME, retriever or memory; one answer may lack several.",
    ("part",),
)
RECOVERIES = Metric("serve_app_recoveries_total", "counter", "Runs taken over from a process that died.")
SESSIONS_REPAIRED = Metric(
    "serve_app_sessions_repaired_total",
    "counter",
    "Turns whose stored conversation no model can read; outcome is mended or set_aside.",
    ("outcome",),
)
FEEDBACK = Metric(
    "serve_app_feedback_total",
    "counter",
    "Votes on answers; rating is up or down. A changed vote counts under both, a repeated one once.",
    ("rating",),
)
SESSION_BYTES = Metric(
    "serve_app_session_bytes", "histogram", "Size of a conversation in Redis after a turn.", (), SIZE_BYTES
)

RESPONSES = Metric(
    "serve_app_responses_total",
    "counter",
    "HTTP responses; code is ok or the error's code.",
    ("route", "status", "code"),
)
RESPONSE_S = Metric(
    "serve_app_response_seconds", "histogram", "From a request to the end of its response.", ("route",), ANSWER_S
)

CACHE_LOOKUPS = Metric(
    "serve_app_cache_lookups_total",
    "counter",
    "Lookups in the answer cache; outcome is hit, joined, miss or bypassed.",
    ("outcome",),
)
TURNS_REFUSED = Metric(
    "serve_app_turns_refused_total",
    "counter",
    "Turns that an ingress refused, or that failed before they had a run; reason is as in the event turn_refused.",
    ("reason",),
)
REQUESTS_SHED = Metric(
    "serve_app_requests_shed_total",
    "counter",
    "Requests that a proxy refused by itself (load shedding): an ingress has just refused the same key.",
    ("code",),
)
TURNS_WAITING = Metric(
    "serve_app_turns_waiting", "gauge", "Most turns that waited at this ingress at the same time in the last 5 s."
)
PLACES = Metric("serve_app_admission_max_in_flight", "gauge", "Turns that this ingress may serve at once.")
ADMISSION_WAIT_S = Metric(
    "serve_app_admission_wait_seconds",
    "histogram",
    "Wait of a turn for admission at the ingress; turns that did not wait are not counted.",
    (),
    (0.01, 0.025, *ANSWER_S[:8]),
)
LIMITER_FAILURES = Metric(
    "serve_app_limiter_failures_total",
    "counter",
    "Rate limit operations that Redis did not answer; operation is ask or charge.",
    ("operation",),
)

MODEL_CALLS = Metric(
    "serve_app_model_calls_total",
    "counter",
    "Calls of a model; outcome is ok, timeout, rate_limited, unavailable, refused, unreadable or cancelled.",
    ("model", "outcome"),
)
MODEL_S = Metric(
    "serve_app_model_seconds", "histogram", "One call of a model, a stream to its last chunk.", ("model",), ANSWER_S
)
MODEL_TOKENS = Metric(
    "serve_app_model_tokens_total",
    "counter",
    "Tokens as the provider counts them; direction is input or output.",
    ("model", "direction"),
)
MODEL_RETRIES = Metric("serve_app_model_retries_total", "counter", "Calls of a model made once more.", ("model",))
MODEL_FALLBACKS = Metric(
    "serve_app_model_fallbacks_total", "counter", "Replies of a model in place of the first one.", ("model",)
)

TOOL_CALLS = Metric(
    "serve_app_tool_calls_total",
    "counter",
    "Calls of a tool; outcome is ok, error, timeout, standby, unknown or refused.",
    ("tool", "outcome"),
)
TOOL_S = Metric(
    "serve_app_tool_seconds", "histogram", "One call of a tool, its attempts together.", ("tool",), ANSWER_S
)
TOOL_ATTEMPTS = Metric(
    "serve_app_tool_attempts_total", "counter", "Attempts at calls of a tool, its standby's included.", ("tool",)
)

RETRIEVALS = Metric(
    "serve_app_retrievals_total",
    "counter",
    "Searches of the knowledge base; outcome is ok, standby, lexical_only, error or timeout.",
    ("outcome",),
)
RETRIEVAL_S = Metric("serve_app_retrieval_seconds", "histogram", "One search of the knowledge base.", (), LOOKUP_S)
RETRIEVAL_PASSAGES = Metric("serve_app_retrieval_passages_total", "counter", "Passages that searches found.")
RETRIEVAL_EMPTY = Metric("serve_app_retrieval_empty_total", "counter", "Searches that found nothing.")

BREAKER_STATE = Metric(
    "serve_app_breaker_state", "gauge", "A dependency's breaker: 0 closed, 1 half-open, 2 open.", ("dependency",)
)
STORE_CALLS = Metric(
    "serve_app_store_calls_total",
    "counter",
    "Calls of redis or milvus, a pipeline as one; outcome is ok or error.",
    ("store", "outcome"),
)
STORE_S = Metric("serve_app_store_seconds", "histogram", "One call of redis or milvus.", ("store",), LOOKUP_S)

ACCESS_AGE_S = Metric(
    "serve_app_access_age_seconds",
    "gauge",
    "Age of the API keys and limits that this ingress has cached; below 2 when healthy.",
)

CPU_S = Metric("serve_app_process_cpu_seconds_total", "counter", "Processor time of the process.")
RESIDENT_BYTES = Metric("serve_app_process_resident_bytes", "gauge", "Memory of the process in RAM.")
LOOP_BUSY = Metric(
    "serve_app_event_loop_busy_ratio",
    "gauge",
    "Share of the last second, 0-1, in which the event loop worked or waited for a core.",
)
LOOP_LAG_S = Metric("serve_app_event_loop_lag_seconds", "gauge", "Worst delay of the event loop in the last interval.")

DROPPED_SPANS = Metric(
    "serve_app_dropped_spans_total", "counter", "Spans that were dropped; sink is langsmith or otlp.", ("sink",)
)

ALL = tuple(each for each in list(globals().values()) if isinstance(each, Metric))

STABLE = "stable"
"""The variant of every turn."""
UNKNOWN = "unknown"
"""The label value for a name that is not configured: a model may invent any number of names."""
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
