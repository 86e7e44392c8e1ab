-- A gateway says what it has, and hears how things stand. It writes, so a replica refuses it: what
-- a replica shows may be older than when it was asked.
-- KEYS: meta, pulse, gateways
-- ARGV: gateway, what it has
-- Returns: {tick, attested tick, its head, its epoch, epoch, log, head, whether SQL went back}, nil
-- where there is none
local pulse = redis.call('HMGET', KEYS[2], 'tick', 'attested', 'attested_head', 'attested_epoch')
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'log', 'head', 'went_back')
redis.call('HSET', KEYS[3], ARGV[1], (pulse[1] or '0') .. ' ' .. ARGV[2])
return {pulse[1], pulse[2], pulse[3], pulse[4], meta[1], meta[2], meta[3], meta[4]}
