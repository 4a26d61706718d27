-- Lift the fence counter to `floor` where it is lower. Returns the counter.
local current, floor = tonumber(redis.call('GET', FENCE) or '0'), tonumber(ARGV[1])
if current < floor then
  redis.call('SET', FENCE, integer(floor))
  current = floor
end
return current
