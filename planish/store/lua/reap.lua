-- Take a job from a worker whose lease is over. Returns 'requeued', 'exhausted' (it crashed too
-- often: fenced, kept RUNNING until its outcome is settled) or 'alive' (nothing to do).
-- id max_crashes doorbell_ms progress
local id, max_crashes, doorbell, progress = unpack(ARGV)
local expiry = tonumber(redis.call('ZSCORE', LEASES, id) or 'inf')
local now = now_ms()
if expiry > now then return 'alive' end
local status, exhausted = get(id, 'status', 'exhausted')
if status ~= 'running' then
  redis.call('ZREM', LEASES, id)
  return 'alive'
end
if exhausted == '1' then return 'exhausted' end
local crashes = redis.call('HINCRBY', job_key(id), 'crashes', 1)
if crashes >= tonumber(max_crashes) then
  set(id, 'exhausted', '1', 'token', '', 'fence', integer(redis.call('INCR', FENCE)))
  return 'exhausted'
end
requeue(id, now, now, now + tonumber(doorbell), progress, 'worker_lost')
return 'requeued'
