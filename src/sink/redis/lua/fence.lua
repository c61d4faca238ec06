-- Comes first in every script: who may write here. The rules are those of `mod.rs`.
-- KEYS: [1] board (or prefix of the rows), [2] fence, [3] staging; then what the script needs.
-- ARGV: [1] lineage, [2] lane, [3] incarnation, [4] epoch, [5] time to live in ms (0: none); then what the script needs.
local lineage, lane, incarnation, epoch, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held = redis.call('HMGET', KEYS[2], 'lineage', 'lane', 'incarnation', 'epoch', 'cardinality')
if held[2] and held[2] ~= lane then return {'lane', held[2]} end
if held[1] and (held[1] > lineage or (held[1] == lineage and tonumber(held[3]) > incarnation)) then
  return {'claim', held[1], held[3]}
end
-- The epoch that this very claim wrote last; false if it wrote none yet.
local at = held[1] == lineage and tonumber(held[3]) == incarnation and tonumber(held[4])
if at and at == epoch then return {'applied'} end
if at and at > epoch then return {'ahead', held[4]} end

local function expire(key)
  if ttl > 0 then redis.call('PEXPIRE', key, ttl) else redis.call('PERSIST', key) end
end

-- Last of all writes of a script, since a script that dies half-way is not rolled back.
local function take_fence(cardinality)
  redis.call('HSET', KEYS[2], 'lineage', lineage, 'lane', lane, 'incarnation', ARGV[3], 'epoch', ARGV[4], 'cardinality', cardinality)
  expire(KEYS[2])
end

-- Calls `command key` with ARGV[first..last], 2 000 at a time: Lua's stack has a bound.
local function call_with(command, key, first, last)
  for from = first, last, 2000 do
    redis.call(command, key, unpack(ARGV, from, math.min(from + 1999, last)))
  end
end
