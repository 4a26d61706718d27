-- Ids of a zset whose time has come, oldest first. With again_ms >= 0 their next time is set in
-- the same call, so that two callers do not both act on one.
-- zset limit again_ms
local key, limit, again = PREFIX .. ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', key, '-inf', integer(now), 'LIMIT', 0, limit)
if again >= 0 then
  for _, id in ipairs(ids) do redis.call('ZADD', key, now + again, id) end
end
return ids
