-- Makes a built epoch the current one, if nothing has changed since the builder looked.
-- KEYS: meta, new entries, new expiry, old entries, old expiry, old stream
-- ARGV: epoch and head that are expected (empty for none), new epoch, log, head, count
-- Returns: {'ok', head} | {'lost', ''} | {'changed', epoch, head}
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'head')
local epoch, head = meta[1] or '', meta[2] or ''
if epoch ~= ARGV[1] or head ~= ARGV[2] then return {'changed', epoch, head} end
if redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[6]) then return {'lost', '', ''} end
redis.call('PERSIST', KEYS[2])
redis.call('PERSIST', KEYS[3])
redis.call('HDEL', KEYS[1], 'went_back')
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'log', ARGV[4], 'head', ARGV[5], 'count', ARGV[6])
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
return {'ok', ARGV[5], ''}
