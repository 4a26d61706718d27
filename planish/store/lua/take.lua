-- Take tokens from a bucket that refills steadily (token bucket, RFC 2697's idea without colours).
-- Returns {1 or 0, tokens left, ms until `cost` tokens are there}.
-- bucket capacity per_second cost
local key = PREFIX .. 'bucket:' .. ARGV[1]
local capacity, rate, cost = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local state = redis.call('HMGET', key, 'tokens', 'at')
local tokens = math.min(capacity,
  tonumber(state[1] or capacity) + (now - tonumber(state[2] or now)) / 1000 * rate)
local taken = tokens >= cost and 1 or 0
tokens = tokens - cost * taken
redis.call('HSET', key, 'tokens', string.format('%.6f', tokens), 'at', integer(now))
redis.call('PEXPIRE', key, integer(math.ceil(capacity / rate * 1000) + 1000))
local wait = math.max(0, (cost - tokens) / rate * 1000)
return { taken, integer(math.floor(tokens)), integer(math.ceil(wait)) }
