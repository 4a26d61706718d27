-- Shared by every transition; put in front of each script when it is loaded.
--
-- planish:job:<id>      hash: state, fence, public fragments (ready JSON) and `doc`, the Job document
-- planish:events:<id>   stream: ids 1-0, 2-0, … without gaps; t = type, d = the event as JSON
-- planish:leases        zset: running job -> end of its lease, ms
-- planish:pending       zset: queued job -> when its doorbell is due, ms
-- planish:start_by      zset: job that never started -> when it expires, ms
-- planish:withdrawn     zset: queued job with a cancel request -> time of the request, ms
-- planish:webhooks      zset: finished job -> when its message is due, ms
-- planish:index:…       zset, score 0: ids by all | tenant:<t> | live:<t> | status:<s> | label:<k>=<v> (jobs) | plans
-- planish:uses:<file>   set: live jobs that read an uploaded file
-- planish:fence         counter over all jobs
-- planish:bucket:<name> hash: tokens that are left of a tenant's share, and when that was
--
-- Keys are made here and not passed as KEYS: the ledger lives on one server, not on a cluster.
-- Time is the server's alone, in ms since 1970.

local PREFIX = 'planish:'
local LEASES = PREFIX .. 'leases'
local PENDING = PREFIX .. 'pending'
local START_BY = PREFIX .. 'start_by'
local WITHDRAWN = PREFIX .. 'withdrawn'
local WEBHOOKS = PREFIX .. 'webhooks'
local FENCE = PREFIX .. 'fence'
local MAX_EVENTS = 10000
local TERMINAL = { succeeded = true, failed = true, cancelled = true, expired = true }

local function job_key(id) return PREFIX .. 'job:' .. id end
local function events_key(id) return PREFIX .. 'events:' .. id end
local function index_key(name) return PREFIX .. 'index:' .. name end
local function uses_key(file) return PREFIX .. 'uses:' .. file end
local function integer(n) return string.format('%.0f', n) end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- RFC 3339 in quotes. Civil date from days: https://howardhinnant.github.io/date_algorithms.html
local function timestamp(ms)
  local days, rest = math.floor(ms / 86400000) + 719468, ms % 86400000
  local era, doe = math.floor(days / 146097), days % 146097
  local yoe = math.floor(
    (doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ"', year, month, day,
    math.floor(rest / 3600000), math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60,
    rest % 1000)
end

local function get(id, ...) return unpack(redis.call('HMGET', job_key(id), ...)) end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end

-- The Job document from its fragments; the field order is the contract's.
local function publish(id)
  local status, cancel = get(id, 'status', 'cancel')
  local name, labels, attempt, created, started, finished, progress = get(id, 'name', 'labels',
    'attempt', 'created_at', 'started_at', 'finished_at', 'progress')
  local spec, verdict, result, err, links = get(id, 'spec', 'verdict', 'result', 'error', 'links')
  set(id, 'doc', table.concat({
    '{"id":"', id, '","name":', name, ',"labels":', labels, ',"status":"', status,
    '","terminal":', tostring(TERMINAL[status] == true),
    ',"succeeded":', tostring(status == 'succeeded'),
    ',"cancel_requested":', tostring(cancel == '1'), ',"attempt":', attempt,
    ',"created_at":', created, ',"started_at":', started, ',"finished_at":', finished,
    ',"progress":', progress, ',"spec":', spec, ',"verdict":', verdict,
    ',"result":', result, ',"error":', err, ',"links":', links, '}' }))
end

local function emit(id, now, kind, data)
  local n = integer(redis.call('HINCRBY', job_key(id), 'events', 1))
  redis.call('XADD', events_key(id), 'MAXLEN', '~', MAX_EVENTS, n .. '-0', 't', kind, 'd',
    '{"id":' .. n .. ',"type":"' .. kind .. '","time":' .. timestamp(now) .. ',"data":' .. data .. '}')
end

-- Change the state and the status index with it; plans are in no listing.
local function move(id, to)
  local from, kind = get(id, 'status', 'kind')
  set(id, 'status', to)
  if kind == 'job' then
    redis.call('ZREM', index_key('status:' .. from), id)
    redis.call('ZADD', index_key('status:' .. to), 0, id)
  end
end

-- Whether this fence is the one that holds the job now.
local function held(id, fence)
  local status, current = get(id, 'status', 'fence')
  return status == 'running' and current == fence
end

-- RUNNING -> QUEUED. The old fence is dead: it only counts while the job is running.
local function requeue(id, now, not_before, due, progress, reason)
  local attempt, cancel = get(id, 'attempt', 'cancel')
  redis.call('ZREM', LEASES, id)
  redis.call('ZADD', PENDING, due, id)
  if cancel == '1' then redis.call('ZADD', WITHDRAWN, now, id) end
  move(id, 'queued')
  set(id, 'not_before', integer(not_before), 'worker', '', 'progress', progress)
  emit(id, now, 'job.requeued', '{"attempt":' .. attempt .. ',"reason":"' .. reason .. '"}')
  publish(id)
end
