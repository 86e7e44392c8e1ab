-- Puts an entry into its slot, and returns by how much the number of entries changed.
-- A newer entry takes the place of the slot's old one only where it refuses at least as much for at
-- least as long. Otherwise it stands beside it until it expires: nothing that refuses is ever lost.
-- Rows: kind, sequence, issuer, .., bar's value at 7, end at 8, null where it has none.
local function covers(new, old)
  if new[1] == 'g' then return true end
  local new_bar, old_bar = new[7], old[7]
  if type(old_bar) == 'number' and (type(new_bar) ~= 'number' or new_bar < old_bar) then return false end
  local new_end, old_end = new[8], old[8]
  if new_end == cjson.null then return true end
  return old_end ~= cjson.null and new_end >= old_end
end

local function put(entries, expiry, slot, text, ended)
  local new = cjson.decode(text)
  local field, change = slot, 0
  local old = redis.call('HGET', entries, slot)
  if old then
    old = cjson.decode(old)
    if not covers(new, old) then
      -- Nothing to add where the old one refuses all of it anyway.
      field = not covers(old, new) and slot .. '#' .. string.format('%.0f', new[2])
    end
  end
  if field then
    change = redis.call('HSET', entries, field, text)
    if new[8] == cjson.null then
      redis.call('ZREM', expiry, field)
    else
      redis.call('ZADD', expiry, string.format('%.0f', new[8]), field)
    end
  end
  if ended ~= '' then
    change = change - redis.call('HDEL', entries, ended)
    redis.call('ZREM', expiry, ended)
  end
  return change
end
