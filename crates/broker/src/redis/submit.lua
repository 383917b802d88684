-- Lets a frame wait in its slot, in place of an older one, and its track for its turn, unless it waits already.
-- The frame was set before, under a name of its own: what passes through a script is copied twice, and slowly.
-- KEYS: the slot, where the frame is, the queue of turns. ARGV: the turn, ms that a queue outlives its last frame.
-- Returns 0: no frame waited; 1: one waited and is replaced; 2: the same, and its turn had left the queue without it.
local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'list' and kind ~= 'none' then
  redis.call('DEL', KEYS[3])
end
local waited = redis.call('EXISTS', KEYS[1])
redis.call('RENAME', KEYS[2], KEYS[1])
local queued = redis.call('LPOS', KEYS[3], ARGV[1])
if not queued then
  redis.call('RPUSH', KEYS[3], ARGV[1])
end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
if waited == 0 then
  return 0
end
return queued and 1 or 2
