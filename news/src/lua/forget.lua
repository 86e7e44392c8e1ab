-- Takes out entries that may be forgotten.
-- KEYS: meta, entries, expiry
-- ARGV: epoch, now, how many at most
-- Returns: how many were taken out
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'count')
if meta[1] ~= ARGV[1] then return 0 end
local count = tonumber(meta[2])
-- Damage is for a rebuild to repair, not to be counted away.
if count ~= redis.call('HLEN', KEYS[2]) then return 0 end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
if #due == 0 then return 0 end
local gone = redis.call('HDEL', KEYS[2], unpack(due))
redis.call('ZREM', KEYS[3], unpack(due))
redis.call('HSET', KEYS[1], 'count', count - gone)
return #due
