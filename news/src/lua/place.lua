-- Places among those that load at the same time: to take one, to keep one that is held, to give it
-- back. Whoever does not keep a place loses it.
-- KEYS: meta, loads
-- ARGV: 'take' | 'keep' | 'give', gateway, milliseconds until it is lost, how many there are
-- Returns: {1 where the gateway holds a place, else 0, the current epoch or ''}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local places = {}
for i = 1, tonumber(ARGV[4]) do places[i] = tostring(i) end
local free, mine
for i, held in ipairs(redis.call('HMGET', KEYS[2], unpack(places))) do
  local till, gateway = string.match(held or '', '^(%d+) (.+)$')
  till = tonumber(till or '0')
  if gateway == ARGV[2] then
    mine = places[i]
  elseif till <= now or till > now + ARGV[3] then
    -- One that is lost only after longer than a place lasts is from before the clock went back.
    free = free or places[i]
  end
end
local holds = 0
if ARGV[1] == 'give' then
  if mine then redis.call('HDEL', KEYS[2], mine) end
elseif mine or (free and ARGV[1] == 'take') then
  redis.call('HSET', KEYS[2], mine or free, string.format('%.0f %s', now + ARGV[3], ARGV[2]))
  holds = 1
end
return {holds, redis.call('HMGET', KEYS[1], 'epoch')[1] or ''}
