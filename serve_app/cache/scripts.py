"""How do answers, and the right to make one, change in Redis?

Whoever asks reads the version of the documents in the same step as the answer. An answer made under another version is
never given, and is not kept where the version has changed meanwhile: a process that asked before a document changed,
and is done after, keeps nothing. Nor does an answer take the place of one that was begun later, by Redis's clock.

A script may run twice, because the client repeats one whose reply was lost; the second time changes nothing.
"""

from __future__ import annotations

FIND = """
-- KEYS answer lead waiting version
-- ARGV run owner life_ms afresh
local version = redis.call('GET', KEYS[4]) or ''
if ARGV[4] == '' then
  local kept = redis.call('HMGET', KEYS[1], 'version', 'answer')
  if kept[1] == version then return {'kept', kept[2]} end
  local lead = redis.call('HMGET', KEYS[2], 'run', 'version')
  if lead[2] == version and lead[1] == '' then return {'alone'} end
  if lead[2] == version and lead[1] ~= ARGV[1] then
    redis.call('SADD', KEYS[3], ARGV[2])
    redis.call('PEXPIRE', KEYS[3], 5 * ARGV[3])
    return {'joined', redis.call('PTTL', KEYS[2])}
  end
end
redis.call('HSET', KEYS[2], 'run', ARGV[1], 'version', version)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local now = redis.call('TIME')
return {'lead', version, now[1] * 1000000 + now[2]}
"""
"""An answer, or the right to make it and since when (Unix time in microseconds), or for how long another run has that
right; or neither: a run that had it found that its answer is not one to keep. `afresh` wants no answer that was made
before."""

_WAKE = """
local function wake()
  for _, owner in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local inbox = 'serve_app:inbox:' .. owner
    redis.call('XADD', inbox, 'MAXLEN', '~', 1000, '*', 'answer', KEYS[1])
    redis.call('EXPIRE', inbox, 60)
  end
  redis.call('DEL', KEYS[3])
end
"""

KEEP = (
    _WAKE
    + """
-- KEYS answer lead waiting version
-- ARGV run version begun_us ttl_ms answer
local holder = redis.call('HGET', KEYS[2], 'run')
if holder and holder ~= ARGV[1] then return 0 end
local kept = redis.call('HMGET', KEYS[1], 'version', 'begun_us')
if not holder and kept[1] == ARGV[2] and tonumber(kept[2] or 0) > tonumber(ARGV[3]) then return 0 end
local current = (redis.call('GET', KEYS[4]) or '') == ARGV[2]
if current then
  redis.call('HSET', KEYS[1], 'version', ARGV[2], 'begun_us', ARGV[3], 'answer', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.call('DEL', KEYS[2])
wake()
return current and 1 or 0
"""
)
"""A right that has lapsed is still good where nobody has it, and nobody who had it later has kept an answer."""

RELEASE = (
    _WAKE
    + """
-- KEYS answer lead waiting
-- ARGV run alone_ms
if redis.call('HGET', KEYS[2], 'run') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'run', '')
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
wake()
return 1
"""
)
"""For `alone_ms` nobody waits for another one's answer."""

RENEW = """
-- KEYS lead
-- ARGV run life_ms
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
