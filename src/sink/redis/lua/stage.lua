-- Writes one part of a board beside it, and with the last part swaps it in.
-- ARGV: [6] how it begins: 'new' (nothing), 'copy' (the present board) or 'more' (the part before),
-- [7] how many members were staged by the part before, [8] '1' with the last part, [9] how many members leave, then those,
-- then score, member, …
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'zset' then return {'type', kind} end
if ARGV[6] == 'more' then
  if redis.call('ZCARD', KEYS[3]) ~= tonumber(ARGV[7]) then return {'again'} end
else
  redis.call('DEL', KEYS[3])
  if ARGV[6] == 'copy' then redis.call('ZUNIONSTORE', KEYS[3], 1, KEYS[1]) end
end
local removed = tonumber(ARGV[9])
call_with('ZREM', KEYS[3], 10, 9 + removed)
call_with('ZADD', KEYS[3], 10 + removed, #ARGV)
expire(KEYS[3])
local cardinality = redis.call('ZCARD', KEYS[3])
if ARGV[8] ~= '1' then return {'staged', tostring(cardinality)} end
if cardinality == 0 then redis.call('DEL', KEYS[1]) else redis.call('RENAME', KEYS[3], KEYS[1]) end
expire(KEYS[1]) -- after RENAME, which brings the staging key's own
take_fence(cardinality)
return {'done'}
