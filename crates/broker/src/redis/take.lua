-- Hands a worker the newest frame of the track that has waited longest, from the first queue that has one. The frame itself is
-- fetched by the next command, from where it is put here.
-- KEYS: where to put the frame, then the queues in the order in which they are asked. ARGV: for each queue, what the names of its slots
-- begin with.
-- Returns the number of the queue, the turn and ms to the deadline; or nothing, when no frame waits.
for number = 2, #KEYS do
  -- A turn whose slot is empty is skipped: its frame has expired, or another worker has it. Sixty-four at a time keep this short.
  for _ = 1, 64 do
    local turn = redis.pcall('LPOP', KEYS[number])
    if type(turn) ~= 'string' then
      break
    end
    local slot = ARGV[number - 1] .. turn
    if redis.call('TYPE', slot).ok == 'string' then
      redis.call('RENAME', slot, KEYS[1])
      return { number - 1, turn, redis.call('PTTL', KEYS[1]) }
    end
  end
end
return false
