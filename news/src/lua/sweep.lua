-- Forgets gateways and publishers that have not been heard of for many ticks.
-- KEYS: pulse, gateways
-- ARGV: ticks of silence, for each publisher that is there
-- Returns: how many were forgotten
local tick = tonumber(redis.call('HGET', KEYS[1], 'tick') or '0')
local pulse = redis.call('HGETALL', KEYS[1])
local publishers, gone = 0, 0
for i = 1, #pulse, 2 do
  if string.sub(pulse[i], 1, 2) == 'p:' then publishers = publishers + 1 end
end
local silence = tonumber(ARGV[1]) * math.max(publishers, 1)
for i = 1, #pulse, 2 do
  if string.sub(pulse[i], 1, 2) == 'p:' and tonumber(pulse[i + 1]) < tick - silence then
    gone = gone + redis.call('HDEL', KEYS[1], pulse[i])
  end
end
local gateways = redis.call('HGETALL', KEYS[2])
for i = 1, #gateways, 2 do
  local seen = tonumber(string.match(gateways[i + 1], '^%d+'))
  -- A tick that has not been yet is from before the counter was lost.
  if not seen or seen < tick - silence or seen > tick then
    gone = gone + redis.call('HDEL', KEYS[2], gateways[i])
  end
end
return gone
