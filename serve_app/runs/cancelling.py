"""How does a run end by a client's wish, whichever process runs it?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from serve_app.runs import scripts
from serve_app.runs.tally import UNCOUNTED
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, control_stream
from serve_app.values import Cancelled

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.runs.tally import Tally

CONTROL_TTL_S = 60
"""A process that does not read its stream for so long is dead."""
CONTROL_LENGTH = 1000


async def cancel(redis: Redis, run: RunKeys, ttl_s: int, tally: Tally = UNCOUNTED) -> bool:
    """End the run, and tell its owner to stop; False where there is no such run. One that has ended stays as it is.

    The last event is in the log at once, from where its followers have it; whatever the owner still writes is refused.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    client: Any = redis
    last = Cancelled(run_id=run.run_id)
    keys = (run.run, UNFINISHED_RUNS, run.steps)
    with translate_redis_errors():
        ending = ("cancelled", last.event, last.model_dump_json(), "")
        outcome, *ended = await client.eval(scripts.END, len(keys), *keys, run.member, ttl_s, *ending)
        if not ended:
            return bool(outcome != "missing")
        owner, registered_at = ended
        tally.ended(last, time.time() - float(registered_at))
        if owner:
            async with client.pipeline(transaction=True) as pipe:
                pipe.xadd(control_stream(owner), {"run": run.member}, maxlen=CONTROL_LENGTH)
                pipe.expire(control_stream(owner), CONTROL_TTL_S)
                await pipe.execute()
    return True
