-- Extend the lease; with progress (JSON, or empty for none) also publish it.
-- Returns 'ok', 'cancel' (ok, and a cancel is asked for) or 'fenced' (the job is somebody else's).
-- id fence lease_ms progress
local id, fence, lease, progress = unpack(ARGV)
if not held(id, fence) then return 'fenced' end
local now = now_ms()
redis.call('ZADD', LEASES, now + tonumber(lease), id)
if progress ~= '' then
  set(id, 'progress', progress)
  emit(id, now, 'job.progress', progress)
  publish(id)
end
return get(id, 'cancel') == '1' and 'cancel' or 'ok'
