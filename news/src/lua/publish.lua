-- Appends a batch, if the head is still the one that it follows. Effects are all or none.
-- KEYS: meta, entries, expiry, stream
-- ARGV: epoch, head that is expected, first, last, how many of the log's numbers the stream keeps,
--       then the entries as put_all takes them
-- Returns: {'ok', head} | {'head', head} | {'epoch', ''} | {'damaged', ''}
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'count')
if meta[1] ~= ARGV[1] then return {'epoch', ''} end
if meta[2] ~= ARGV[2] then return {'head', meta[2] or ''} end
local count = tonumber(meta[3])
if count ~= redis.call('HLEN', KEYS[2]) then return {'damaged', ''} end
local oldest = string.format('%.0f-0', math.max(0, tonumber(ARGV[4]) - tonumber(ARGV[5])))
local item = {'XADD', KEYS[4], 'MINID', '~', oldest, ARGV[4] .. '-0', 'first', ARGV[3]}
-- The log's numbers may go back in a stream that outlived its meta.
local newest = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)
if newest[1] and tonumber(string.match(newest[1][1], '^%d+')) >= tonumber(ARGV[4]) then
  return {'damaged', ''}
end
count = count + put_all(KEYS[2], KEYS[3], 6)
for i = 6, #ARGV, 4 do
  item[#item + 1] = 'e'
  item[#item + 1] = ARGV[i + 1]
end
redis.call('HSET', KEYS[1], 'head', ARGV[4], 'count', count)
redis.call(unpack(item))
return {'ok', ARGV[4]}
