-- A publisher says: I read SQL after I began `tick`, and all up to `head` is here.
-- KEYS: meta, pulse, entries
-- ARGV: publisher, tick, epoch, head
-- Returns: 'ok' | 'late' | 'epoch' | 'behind' | 'damaged'
if redis.call('HGET', KEYS[2], 'p:' .. ARGV[1]) ~= ARGV[2] then return 'late' end
local tick = tonumber(ARGV[2])
if tick > tonumber(redis.call('HGET', KEYS[2], 'tick') or '0') then return 'late' end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'count')
if meta[1] ~= ARGV[3] then return 'epoch' end
if tonumber(meta[2]) < tonumber(ARGV[4]) then return 'behind' end
if tonumber(meta[3]) ~= redis.call('HLEN', KEYS[3]) then return 'damaged' end
if tick > tonumber(redis.call('HGET', KEYS[2], 'attested') or '0') then
  redis.call('HSET', KEYS[2], 'attested', ARGV[2], 'attested_head', ARGV[4], 'attested_epoch', ARGV[3])
end
return 'ok'
