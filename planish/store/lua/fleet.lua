-- What the living workers said of themselves; the dead are forgotten.
local workers, info = PREFIX .. 'workers', PREFIX .. 'worker_info'
local dead = redis.call('ZRANGEBYSCORE', workers, '-inf', integer(now_ms()))
for _, worker in ipairs(dead) do
  redis.call('ZREM', workers, worker)
  redis.call('HDEL', info, worker)
end
return redis.call('HVALS', info)
