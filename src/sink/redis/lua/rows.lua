-- Writes hashes, one for each row. KEYS: [4]… the rows' keys.
-- ARGV: [6] '1' with the last part of the epoch, then for each key: how many fields are set (-1: the row leaves), how many are
-- unset, then field, value, … of the first and field, … of the others.
local next = 7
for row = 4, #KEYS do
  local set, unset = tonumber(ARGV[next]), tonumber(ARGV[next + 1])
  next = next + 2
  if set < 0 then
    redis.call('DEL', KEYS[row])
  else
    if unset > 0 then redis.call('HDEL', KEYS[row], unpack(ARGV, next + 2 * set, next + 2 * set + unset - 1)) end
    if set > 0 then redis.call('HSET', KEYS[row], unpack(ARGV, next, next + 2 * set - 1)) end
    next = next + 2 * set + unset
    expire(KEYS[row])
  end
end
if ARGV[6] == '1' then take_fence(0) end
return {'done'}
