-- A publisher begins to read SQL: raises the tick and notes whose it is.
-- KEYS: meta, pulse
-- ARGV: publisher
-- Returns: {tick, attested tick, epoch, log, head, whether SQL went back}, the last four nil where meta
-- lacks them
local tick = redis.call('HINCRBY', KEYS[2], 'tick', 1)
redis.call('HSET', KEYS[2], 'p:' .. ARGV[1], tick)
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'log', 'head', 'went_back')
local attested = redis.call('HGET', KEYS[2], 'attested')
return {tick, attested or '0', meta[1], meta[2], meta[3], meta[4]}
