-- Changes the board in place.
-- ARGV: [6] the epoch that the board must be at ('*': any), [7] how many members leave, then those, then score, member, …
if ARGV[6] ~= '*' and (not at or at ~= tonumber(ARGV[6]) or redis.call('ZCARD', KEYS[1]) ~= tonumber(held[5])) then
  return {'whole'}
end
local removed = tonumber(ARGV[7])
call_with('ZREM', KEYS[1], 8, 7 + removed)
call_with('ZADD', KEYS[1], 8 + removed, #ARGV)
expire(KEYS[1])
take_fence(redis.call('ZCARD', KEYS[1]))
return {'done'}
