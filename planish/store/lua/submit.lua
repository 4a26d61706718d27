-- Create a job in QUEUED. Returns 1, or 0 when it exists.
-- id kind name labels created_at spec links progress start_by_ms doorbell_ms attempt indexes files tenant webhook
local id, kind, name, labels, created, spec, links, progress = unpack(ARGV, 1, 8)
local start_by, doorbell, attempt, indexes, files, tenant, webhook = unpack(ARGV, 9, 15)
if redis.call('EXISTS', job_key(id)) == 1 then return 0 end
local now = now_ms()
redis.call('DEL', events_key(id))
set(id, 'kind', kind, 'status', 'queued', 'attempt', attempt, 'crashes', '0', 'fence', '0',
  'worker', '', 'cancel', '0', 'closed', '0', 'exhausted', '0', 'not_before', '0', 'events', '0',
  'name', name, 'labels', labels, 'created_at', created, 'started_at', 'null',
  'finished_at', 'null', 'progress', progress, 'spec', spec, 'verdict', 'null', 'result', 'null',
  'error', 'null', 'links', links, 'indexes', indexes, 'files', files,
  'tenant', tenant, 'webhook', webhook)
redis.call('ZADD', PENDING, now + tonumber(doorbell), id)
if attempt == '0' then redis.call('ZADD', START_BY, now + tonumber(start_by), id) end
for _, file in ipairs(cjson.decode(files)) do redis.call('SADD', uses_key(file), id) end
if kind == 'job' then
  redis.call('ZADD', index_key('all'), 0, id)
  redis.call('ZADD', index_key('tenant:' .. tenant), 0, id)
  redis.call('ZADD', index_key('live:' .. tenant), 0, id)
  redis.call('ZADD', index_key('status:queued'), 0, id)
  for _, label in ipairs(cjson.decode(indexes)) do
    redis.call('ZADD', index_key('label:' .. label), 0, id)
  end
else
  redis.call('ZADD', index_key('plans'), 0, id)
end
emit(id, now, 'job.queued', '{}')
publish(id)
return 1
