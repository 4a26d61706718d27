-- A page of Job documents, newest first. Walks the smallest of the wanted indexes and looks each
-- id up in the others; looks at `bound` ids at most, so a page may be short and still go on.
-- Returns {cursor or '', doc, doc, …}.
-- limit after bound index…
local limit, after, bound = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local keys = {}
for i = 4, #ARGV do keys[#keys + 1] = index_key(ARGV[i]) end
table.sort(keys, function(a, b) return redis.call('ZCARD', a) < redis.call('ZCARD', b) end)
local function wanted(id)
  for i = 2, #keys do
    if not redis.call('ZSCORE', keys[i], id) then return false end
  end
  return true
end
local page, cursor, looked, chunk = { '' }, after, 0, math.min(100, limit + 1)
while true do
  local from = cursor == '' and '+' or '(' .. cursor
  local ids = redis.call('ZREVRANGEBYLEX', keys[1], from, '-', 'LIMIT', 0, chunk)
  for _, id in ipairs(ids) do
    if #page > limit or looked >= bound then
      page[1] = cursor
      return page
    end
    looked, cursor = looked + 1, id
    if wanted(id) then page[#page + 1] = redis.call('HGET', job_key(id), 'doc') end
  end
  if #ids < chunk then return page end
end
