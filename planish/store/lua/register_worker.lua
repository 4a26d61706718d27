-- Say that a worker is alive for the next ttl_ms.
-- worker ttl_ms info
redis.call('ZADD', PREFIX .. 'workers', now_ms() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', PREFIX .. 'worker_info', ARGV[1], ARGV[3])
