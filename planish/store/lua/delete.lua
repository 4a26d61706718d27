-- Forget a terminal job. Returns 'deleted', 'unknown' or 'alive'.
local id = ARGV[1]
local status, kind, indexes, tenant = get(id, 'status', 'kind', 'indexes', 'tenant')
if not status then return 'unknown' end
if not TERMINAL[status] then return 'alive' end
if kind == 'job' then
  redis.call('ZREM', index_key('all'), id)
  redis.call('ZREM', index_key('tenant:' .. tenant), id)
  redis.call('ZREM', index_key('status:' .. status), id)
  for _, label in ipairs(cjson.decode(indexes)) do
    redis.call('ZREM', index_key('label:' .. label), id)
  end
else
  redis.call('ZREM', index_key('plans'), id)
end
redis.call('ZREM', WEBHOOKS, id)
redis.call('DEL', job_key(id), events_key(id))
return 'deleted'
