-- Adds entries to the keys of an epoch that is being built. They expire if nobody goes on.
-- KEYS: entries, expiry
-- ARGV: how many entries must be there already, milliseconds to live, then the entries as put_all
--       takes them
-- Returns: how many there are now, -1 where some were lost
local count = tonumber(ARGV[1])
if count ~= redis.call('HLEN', KEYS[1]) then return -1 end
count = count + put_all(KEYS[1], KEYS[2], 3)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return count
