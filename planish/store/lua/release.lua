-- RUNNING -> QUEUED by the attempt that holds the job. Returns 1, or 0 when it does not.
-- Repeating a release whose reply was lost changes nothing and returns 1.
-- id fence delay_ms crashed progress
local id, fence, delay, crashed, progress = unpack(ARGV)
if not held(id, fence) then
  local status, last = get(id, 'status', 'fence')
  return status == 'queued' and last == fence and 1 or 0
end
local now = now_ms()
local again = now + tonumber(delay)
if crashed == '1' then redis.call('HINCRBY', job_key(id), 'crashes', 1) end
requeue(id, now, again, again, progress, crashed == '1' and 'crashed' or 'released')
return 1
