-- QUEUED -> RUNNING under a new fence and lease. Returns {attempt, fence, crashes, started ms},
-- or nil when the job cannot be taken now. The same token again gives the same answer: a claim
-- whose reply was lost may be repeated.
-- id worker lease_ms token progress
local id, worker, lease, token, progress = unpack(ARGV)
local status, cancel, closed, not_before, crashes, held_by = get(id, 'status', 'cancel', 'closed',
  'not_before', 'crashes', 'token')
if status == 'running' and held_by == token then
  local attempt, fence, started = get(id, 'attempt', 'fence', 'started_ms')
  return { attempt, fence, crashes, started }
end
local now = now_ms()
if status ~= 'queued' or cancel == '1' or closed == '1' or tonumber(not_before) > now then
  return false
end
local fence = integer(redis.call('INCR', FENCE))
local attempt = integer(redis.call('HINCRBY', job_key(id), 'attempt', 1))
redis.call('ZREM', PENDING, id)
redis.call('ZREM', START_BY, id)
redis.call('ZADD', LEASES, now + tonumber(lease), id)
move(id, 'running')
set(id, 'fence', fence, 'worker', worker, 'token', token, 'started_at', timestamp(now),
  'started_ms', integer(now), 'progress', progress)
emit(id, now, 'job.started', '{"attempt":' .. attempt .. '}')
publish(id)
return { attempt, fence, crashes, integer(now) }
