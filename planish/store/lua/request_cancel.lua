-- Ask for a cancel. Returns what the job was: 'unknown', 'terminal', 'queued' or 'running'.
-- A queued job with a cancel request can no longer be claimed.
local id = ARGV[1]
local status, cancel = get(id, 'status', 'cancel')
if not status then return 'unknown' end
if TERMINAL[status] then return 'terminal' end
if cancel ~= '1' then
  local now = now_ms()
  set(id, 'cancel', '1')
  if status == 'queued' then redis.call('ZADD', WITHDRAWN, now, id) end
  emit(id, now, 'job.cancel_requested', '{}')
  publish(id)
end
return status
