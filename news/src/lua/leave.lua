-- A gateway stops in order: nobody shall wait for it. A note of that stays for a while, so that whoever
-- knew it can tell this from a report that Redis lost.
-- KEYS: pulse, gateways
-- ARGV: gateway
-- Returns: 1
redis.call('HSET', KEYS[2], ARGV[1], (redis.call('HMGET', KEYS[1], 'tick')[1] or '0') .. ' left')
return 1
