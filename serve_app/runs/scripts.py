"""Lua scripts of runs: each changes a run atomically, for its owner only.

The lease of a session carries an epoch: a fencing token. It rises with each run that gets the session and with each
process that adopts a run. Every write of a run names its epoch and is refused where the session has a later one, so a
process that wakes up after it lost its lease writes nothing. A lease that has expired and that nobody has taken is
still good.

A script may run twice, because the client repeats one whose reply was lost. The second time changes nothing.
"""

from __future__ import annotations

from serve_app.memory import REMEMBER

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_REGISTER = """
local function register(run, ttl, first)
  redis.call('HSET', run, 'status', 'queued', 'owner', '', 'adoptions', 0, 'taken', 0, 'last', 0,
    'session_id', ARGV[first], 'context', ARGV[first + 1], 'request', ARGV[first + 2], 'created_at', ARGV[first + 3])
  redis.call('EXPIRE', run, ttl)
end
"""

BEGIN = (
    _NOW
    + _REGISTER
    + """
-- KEYS run lease meta unfinished
-- ARGV member owner lease_ms after run_ttl_s session_ttl_s session_id context request created_at
local known = redis.call('HMGET', KEYS[1], 'status', 'owner', 'taken')
local status, owner = known[1], known[2]
if not status then
  register(KEYS[1], ARGV[5], 7)
  status, owner = 'queued', ''
elseif status ~= 'queued' and status ~= 'running' then
  return {'ended'}
end
if owner ~= '' and owner ~= ARGV[2] then
  local until_ms = redis.call('ZSCORE', KEYS[4], ARGV[1])
  local lapsed = not until_ms or tonumber(until_ms) <= now
  -- a follower who has seen the owner's first event asks anew because the owner is gone
  if not lapsed and tonumber(ARGV[4]) < tonumber(known[3]) then return {'elsewhere'} end
  if status == 'running' then
    redis.call('HINCRBY', KEYS[1], 'adoptions', 1)
    redis.call('HSET', KEYS[1], 'adopter', ARGV[2])
  end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2])
redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[4], ARGV[5])
local holder = redis.call('HGET', KEYS[2], 'run')
local last = redis.call('HGET', KEYS[1], 'last')
if holder and holder ~= ARGV[1] then return {'waiting', holder, tonumber(last)} end
local epoch = redis.call('HINCRBY', KEYS[3], 'epoch', 1)
redis.call('EXPIRE', KEYS[3], ARGV[6])
redis.call('HSET', KEYS[2], 'run', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[1], 'status', 'running', 'taken', last + 1)
local rest = redis.call('HMGET', KEYS[1], 'adoptions', 'created_at', 'adopter')
redis.call('HDEL', KEYS[1], 'adopter')
return {'held', epoch, tonumber(last), tonumber(rest[1]), rest[2], rest[3] == ARGV[2] and 1 or 0}
"""
)
"""Gives the run to the owner, and the session's lease where that is free."""

APPEND = (
    REMEMBER
    + """
-- KEYS run lease meta unfinished steps tokens (memory)...
-- ARGV epoch member run_ttl_s tokens_ttl_s status entries (id event data state)... (memory)...
if redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[1] then return 'superseded' end
local run = redis.call('HMGET', KEYS[1], 'status', 'last', 'ended_by')
if run[1] ~= 'running' then return run[3] == ARGV[1] and 'ok' or 'ended' end
local last, memory = tonumber(run[2]), 7 + 4 * ARGV[6]
for i = 7, memory - 1, 4 do
  if tonumber(ARGV[i]) > last then
    local text = ARGV[i + 1] == 'token' or ARGV[i + 1] == 'reasoning'
    local stream = text and KEYS[6] or KEYS[5]
    local fields = {'event', ARGV[i + 1], 'data', ARGV[i + 2]}
    if ARGV[i + 3] ~= '' then fields[5], fields[6] = 'state', ARGV[i + 3] end
    redis.call('XADD', stream, ARGV[i] .. '-0', unpack(fields))
    last = tonumber(ARGV[i])
  end
end
redis.call('HSET', KEYS[1], 'last', last)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[5], ARGV[3])
redis.call('EXPIRE', KEYS[6], ARGV[4])
if ARGV[5] == '' then return 'ok' end
redis.call('HSET', KEYS[1], 'status', ARGV[5], 'ended_by', ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('DEL', KEYS[2])
remember(7, memory)
return {'ok', remembered_bytes(7)}
"""
)
"""Adds events. With a status, ends the run, adds it to the memory, and frees the session; returns the memory's size."""

RENEW = (
    _NOW
    + """
-- KEYS run lease meta unfinished
-- ARGV epoch member lease_ms
if redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[1] then return 'superseded' end
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 'ended' end
redis.call('HSET', KEYS[2], 'run', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[2])
return 'ok'
"""
)
"""Renews the lease of a run: a heartbeat of its owner."""

RESERVE = """
-- KEYS run meta
-- ARGV epoch call
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'superseded' end
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 'ended' end
local by = redis.call('HGET', KEYS[1], ARGV[2])
if not by then redis.call('HSET', KEYS[1], ARGV[2], ARGV[1]) end
return (not by or by == ARGV[1]) and 'ok' or 'taken'
"""
"""Journals that a call with an effect is about to be made; `taken` where an earlier owner has journaled it."""

RELEASE = (
    REMEMBER
    + """
-- KEYS lease meta (memory)...
-- ARGV epoch member (memory)...
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'superseded' end
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[2] then return 'ok' end
redis.call('DEL', KEYS[1])
remember(3, 3)
return 'ok'
"""
)
"""Frees the session of a run that another process has ended, and adds to the memory what the run has done."""

ABANDON = """
-- KEYS run lease meta unfinished
-- ARGV epoch member
local epoch = redis.pcall('HGET', KEYS[3], 'epoch')
if type(epoch) ~= 'table' and epoch ~= ARGV[1] then return 'superseded' end
if redis.pcall('HGET', KEYS[1], 'status') == 'running' then
  redis.call('HSET', KEYS[1], 'status', 'failed', 'ended_by', ARGV[1])
end
redis.call('ZREM', KEYS[4], ARGV[2])
if redis.pcall('HGET', KEYS[2], 'run') == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 'ok'
"""
"""Frees the session of a run whose end cannot be logged, so that nobody adopts the run. Where `meta` is no hash, no
other process can have the session."""

HAND_OVER = """
-- KEYS run lease unfinished
-- ARGV owner member
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 'superseded' end
redis.call('HSET', KEYS[1], 'owner', '')
redis.call('ZADD', KEYS[3], 0, ARGV[2])
if redis.call('HGET', KEYS[2], 'run') == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 'ok'
"""
"""Gives the run up, so that another process adopts it at once."""

END = """
-- KEYS run unfinished steps
-- ARGV member run_ttl_s status event data owner
local run = redis.call('HMGET', KEYS[1], 'status', 'last', 'owner', 'created_at')
if not run[1] then return {'missing'} end
if run[1] ~= 'queued' and run[1] ~= 'running' then return {'ended'} end
if ARGV[6] ~= '' and ARGV[6] ~= run[3] then return {'ended'} end
redis.call('XADD', KEYS[3], (run[2] + 1) .. '-0', 'event', ARGV[4], 'data', ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'last', run[2] + 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1])
return {'ok', run[3], run[4]}
"""
"""Ends a run for a process that is not its owner, or before it has its session; with `owner`, only where that one has
it."""

CLAIM = (
    _NOW
    + _REGISTER
    + """
-- KEYS run unfinished key?
-- ARGV member run_ttl_s start_within_ms key_ttl_s fingerprint session_id context request created_at
if KEYS[3] then
  local known = redis.call('HMGET', KEYS[3], 'run', 'fingerprint')
  if known[1] and known[2] ~= ARGV[5] then return {'reused'} end
  if known[1] and known[1] ~= ARGV[1] then return {'joined', known[1]} end
  redis.call('HSET', KEYS[3], 'run', ARGV[1], 'fingerprint', ARGV[5])
  redis.call('EXPIRE', KEYS[3], ARGV[4])
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  register(KEYS[1], ARGV[2], 6)
  redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return {'fresh'}
"""
)
"""Registers a run; where the idempotency key has one already, returns that one."""

WITHDRAW = """
-- KEYS run unfinished steps key?
-- ARGV member run_ttl_s event data
local run = redis.call('HMGET', KEYS[1], 'status', 'owner', 'ended_by')
if not run[1] or run[3] == 'refusal' then return 1 end
if run[1] ~= 'queued' or run[2] ~= '' then return 0 end
redis.call('XADD', KEYS[3], '1-0', 'event', ARGV[3], 'data', ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('HSET', KEYS[1], 'status', 'failed', 'last', 1, 'ended_by', 'refusal')
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1])
if KEYS[4] then redis.call('DEL', KEYS[4]) end
return 1
"""
"""Ends a registered run that no process has, and frees its idempotency key."""

LAPSED = (
    _NOW
    + """
-- KEYS unfinished
-- ARGV limit full_tenant...
local limit, page = tonumber(ARGV[1]), 1000
local full, found, from = {}, {}, 0
for i = 2, #ARGV do full[ARGV[i]] = true end
repeat
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', from, page)
  for _, member in ipairs(members) do
    if not full[member:match('^(.*):')] then found[#found + 1] = member end
    if #found == limit then return found end
  end
  from = from + page
until #members < page
return found
"""
)
"""Finds the runs whose lease has expired, but for those of full tenants."""
