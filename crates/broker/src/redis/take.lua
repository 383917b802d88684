-- Hands a worker the newest frame of the track that has waited longest, from the first queue that has one. The frame itself is
-- fetched by the next command, from where it is put here.
-- KEYS: where to put the frame, then the queues in the order in which they are asked. ARGV: bytes that a frame may have; the number of
-- the queue whose turn the worker has taken already, or 0; that turn; then for each queue, what the names of its slots begin with.
-- Returns the number of the queue, the turn and ms to the deadline; or 0, the turn and its bytes, when a frame was longer than it may
-- be and was thrown away; or nothing, when no frame waits.
local function frame(number, turn)
  local slot = ARGV[number + 3] .. turn
  local bytes = redis.pcall('STRLEN', slot)
  if type(bytes) == 'table' then
    -- Something of another kind that lies there is passed over; a right that is missing is told.
    return not string.find(bytes.err, 'WRONGTYPE', 1, true) and bytes or nil
  end
  -- Its frame has expired, or another worker has it.
  if bytes == 0 then
    return nil
  end
  if bytes > tonumber(ARGV[1]) then
    redis.call('DEL', slot)
    return { 0, turn, bytes }
  end
  redis.call('RENAME', slot, KEYS[1])
  return { number, turn, redis.call('PTTL', KEYS[1]) }
end

local held = tonumber(ARGV[2])
local found = held > 0 and frame(held, ARGV[3])
if found then
  return found
end
for number = 1, #KEYS - 1 do
  -- A turn whose slot is empty is skipped. Sixty-four at a time keep this short.
  for _ = 1, 64 do
    local turn = redis.pcall('LPOP', KEYS[number + 1])
    if type(turn) ~= 'string' then
      break
    end
    found = #turn <= 64 and frame(number, turn)
    if found then
      return found
    end
  end
end
return false
