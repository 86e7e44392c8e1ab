-- Puts a batch of entries into their slots, in order, and returns by how much the number of entries
-- changed.
-- ARGV from `from` on: slot, text, ended slot and end of each entry, the last two empty where there is
-- none.
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

-- One call for the whole batch costs Redis about what one for an entry does, so what is there is read
-- at once, and what there is to write is collected: `put` has the text of a field, `ends` its end.
local function put_all(entries, expiry, from)
  if not ARGV[from] then return 0 end
  local change, slots = 0, {}
  for i = from, #ARGV, 4 do slots[#slots + 1] = ARGV[i] end
  local held = {}
  for i, text in ipairs(redis.call('HMGET', entries, unpack(slots))) do held[slots[i]] = text end
  local put, ends, fields = {}, {}, {}
  for i = from, #ARGV, 4 do
    local slot, text, ended = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local field, old = slot, held[slot]
    if old then
      local new, former = cjson.decode(text), cjson.decode(old)
      if not covers(new, former) then
        -- Nothing to add where the old one refuses all of it anyway. No slot begins with a digit.
        field = not covers(former, new) and string.format('%.0f', new[2]) .. '#' .. slot
      end
    end
    if field then
      if put[field] == nil then fields[#fields + 1] = field end
      put[field], ends[field] = text, ARGV[i + 3]
      if field == slot then held[slot] = text end
    end
    if ended ~= '' then
      change = change - redis.call('HDEL', entries, ended)
      redis.call('ZREM', expiry, ended)
      if put[ended] then put[ended] = false end
      held[ended] = false
    end
  end
  local sets, scores, unscored = {}, {}, {}
  for _, field in ipairs(fields) do
    if put[field] then
      sets[#sets + 1] = field
      sets[#sets + 1] = put[field]
      if ends[field] == '' then
        unscored[#unscored + 1] = field
      else
        scores[#scores + 1] = ends[field]
        scores[#scores + 1] = field
      end
    end
  end
  if #sets > 0 then change = change + redis.call('HSET', entries, unpack(sets)) end
  if #scores > 0 then redis.call('ZADD', expiry, unpack(scores)) end
  if #unscored > 0 then redis.call('ZREM', expiry, unpack(unscored)) end
  return change
end
