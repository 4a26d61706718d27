-- Ids of jobs that nobody started in time. They are closed: no claim can take them any more.
-- limit
local ids = redis.call('ZRANGEBYSCORE', START_BY, '-inf', integer(now_ms()), 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do set(id, 'closed', '1') end
return ids
