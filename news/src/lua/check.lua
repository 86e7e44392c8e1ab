-- How an epoch's keys stand, all at one instant.
-- KEYS: meta, entries
-- Returns: {epoch, log, head, count, entries that are there}
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'log', 'head', 'count')
return {meta[1], meta[2], meta[3], meta[4], redis.call('HLEN', KEYS[2])}
