-- Append an event of the attempt that holds the job. Returns 1, or 0 when it no longer does.
-- id fence type data
local id, fence, kind, data = unpack(ARGV)
if not held(id, fence) then return 0 end
emit(id, now_ms(), kind, data)
return 1
