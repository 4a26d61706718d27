-- Mirror the outcome file. Returns 1, or 0 when the job is unknown; a terminal state never changes.
-- id status attempt started_at finished_at verdict result error
local id, status, attempt, started, finished, verdict, result, err = unpack(ARGV)
local before, seen, progress, files, tenant, webhook = get(id, 'status', 'attempt', 'progress',
  'files', 'tenant', 'webhook')
if not before then return 0 end
if TERMINAL[before] then return 1 end
local now = now_ms()
for _, key in ipairs({ LEASES, PENDING, START_BY, WITHDRAWN }) do redis.call('ZREM', key, id) end
for _, file in ipairs(cjson.decode(files)) do redis.call('SREM', uses_key(file), id) end
redis.call('ZREM', index_key('live:' .. tenant), id)
if webhook == '1' then redis.call('ZADD', WEBHOOKS, now, id) end
move(id, status)
set(id, 'finished_at', finished, 'verdict', verdict, 'result', result, 'error', err,
  'worker', '', 'token', '')
if tonumber(attempt) > tonumber(seen) then set(id, 'attempt', attempt) end
if started ~= 'null' then set(id, 'started_at', started) end
if status == 'succeeded' then
  local steps = cjson.decode(progress).steps
  set(id, 'progress', string.format('{"stage":"finished","step":%d,"steps":%d,"fraction":1.0,' ..
    '"eta_seconds":0.0,"message":""}', steps, steps))
end
emit(id, now, 'job.finished', '{"status":"' .. status .. '"}')
publish(id)
-- The document is final; its fragments would only take room.
redis.call('HDEL', job_key(id), 'name', 'labels', 'created_at', 'started_at', 'finished_at',
  'progress', 'spec', 'verdict', 'result', 'error', 'links', 'files')
return 1
