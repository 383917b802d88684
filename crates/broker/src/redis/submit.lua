-- Lets a frame wait in its slot, in place of an older one, and its track for its turn, unless it waits already.
-- The frame was set before, under a name of its own: what passes through a script is copied twice, and slowly.
-- KEYS: where the frame is, the queue of turns. ARGV: the slot, the turn, ms that a queue outlives its last frame. The slot is no key,
-- since keys of a script must be readable for its user, and a gateway needs to read no slot.
-- Returns 0: no frame waited; 1: one waited and is replaced; 2: the same, and its turn had left the queue without it.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'list' and kind ~= 'none' then
  redis.call('DEL', KEYS[2])
end
local waited = redis.call('EXISTS', ARGV[1])
redis.call('RENAME', KEYS[1], ARGV[1])
local queued = redis.call('LPOS', KEYS[2], ARGV[2])
if not queued then
  redis.call('RPUSH', KEYS[2], ARGV[2])
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if waited == 0 then
  return 0
end
return queued and 1 or 2
