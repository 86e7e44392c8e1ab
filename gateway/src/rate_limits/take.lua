-- Takes one from a quota: the generic cell rate algorithm on this server's clock, in microseconds.
-- KEYS[1]: the instant at which the quota is whole again. ARGV: the time after which one comes back, and
-- what may be owed before taking. Returns whether it was taken, and what is owed then.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local tolerance = tonumber(ARGV[2])
local whole_at = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
-- No more than all of it is owed, should the clock have gone backwards or the quota been larger.
local owed = math.min(math.max(whole_at - now, 0), tolerance + interval)
if owed > tolerance then
  return {0, owed}
end
owed = owed + interval
redis.call('SET', KEYS[1], string.format('%.0f', now + owed), 'PX', string.format('%.0f', math.ceil(owed / 1000)))
return {1, owed}
