-- Who is there: every change of one person's presence is one run of this, whatever brings it about. That is why no order of
-- connections, ends, sweeps and dead nodes tells a lie; `tests/it/transitions.rs` states it and tries it at random.
--
-- KEYS a partition's `due` · ARGV operation, now, how long without activity is `away`, then the operation's own.
-- All keys of a partition carry one hash tag. Those of a user:
--   leases:{user}    connection -> `node focus user-agent`
--   presence:{user}  status · version (rises with each status) · told (the status that Postgres has) · claimed (when that
--                    was last tried) · hand, hand_at (`busy` or `away`, chosen by hand) · active (the person's last sign)
--                    · seen (the last sign of any connection) · gone (when the last of those that went did)
--                    · grace (until when one of them may come back) · listed
-- Those of the partition, sorted sets:
--   due      `node connection user` by the end of the lease         closed   connections by when they ended
--   grace    users without connection by the end of their grace     idle     users by when they become `away`
--   nodes    nodes with leases by the end of their own              changed  users whose status is to be told, by version
local tag = string.match(KEYS[1], '^({.-})')
local operation, now, idle_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local DUE, CLOSED, GRACE = tag .. ':due', tag .. ':closed', tag .. ':grace'
local IDLE, NODES, CHANGED = tag .. ':idle', tag .. ':nodes', tag .. ':changed'
-- Announcements of one person are at least so far apart; what changes meanwhile is told by the sweep, as it is then.
local APART_MS = 250
-- More changes of one person do not happen at one moment.
local UNKNOWN_MS = 1000
-- An offline person's last seen is in Postgres.
local FORGET_S = 86400

local function leases(user) return tag .. ':leases:' .. user end
local function presence(user) return tag .. ':presence:' .. user end
local function text(number) return string.format('%.0f', number) end
local function is_connected(user) return redis.call('EXISTS', leases(user)) == 1 end

-- The status that follows from everything known, noted where it is a new one.
local function refresh(user)
  local key = presence(user)
  local known = redis.call('HMGET', key, 'status', 'hand', 'active', 'version')
  local status
  if not is_connected(user) then
    -- In the grace nobody has gone yet.
    if redis.call('ZSCORE', GRACE, user) then return end
    status = 'offline'
    redis.call('HDEL', key, 'hand', 'hand_at')
    redis.call('ZREM', IDLE, user)
  elseif known[2] then
    status = known[2]
  elseif tonumber(known[3] or '0') + idle_ms <= now then
    status = 'away'
  else
    status = 'online'
  end
  if status == known[1] then return end
  -- Whoever is new here may have been told of before Redis lost everything, with a version a little above the clock.
  local version = known[4] and math.max(tonumber(known[4]) + 1, now) or now + UNKNOWN_MS
  redis.call('HSET', key, 'status', status, 'version', text(version))
  redis.call('ZADD', CHANGED, text(version), user)
end

-- What is to be told of a user now, appended as four items: user, status, version, last seen.
local function claim(user, into)
  if not redis.call('ZSCORE', CHANGED, user) then return end
  local key = presence(user)
  local known = redis.call('HMGET', key, 'status', 'told', 'claimed', 'version', 'seen')
  if not known[1] or known[1] == known[2] then
    redis.call('ZREM', CHANGED, user)
    return
  end
  if known[3] and tonumber(known[3]) + APART_MS > now then return end
  redis.call('HSET', key, 'claimed', text(now))
  -- Until this is settled nobody knows what Postgres has: what comes after it is told in any case.
  redis.call('HDEL', key, 'told')
  into[#into + 1] = user
  into[#into + 1] = known[1]
  into[#into + 1] = known[4]
  into[#into + 1] = known[5] or text(now)
end

-- A sign of life, and when the person did something, if they did: it may be reported a moment later, and does not undo what
-- they chose after it. Where a whole Redis was lost, the first one after it makes everything again.
local function touch(user, active)
  local key = presence(user)
  if active then
    local known = redis.call('HMGET', key, 'active', 'hand', 'hand_at')
    active = math.max(math.min(active, now), tonumber(known[1] or '0'))
    redis.call('HSET', key, 'active', text(active), 'seen', text(now))
    redis.call('ZADD', IDLE, text(active + idle_ms), user)
    if known[2] == 'away' and active > tonumber(known[3]) then redis.call('HDEL', key, 'hand', 'hand_at') end
  elseif redis.call('HSETNX', key, 'active', text(now)) == 1 then
    redis.call('HSET', key, 'seen', text(now))
    redis.call('ZADD', IDLE, text(now + idle_ms), user)
  end
end

-- The connection has ended; it was last heard of at `gone`. Without another one the user has a grace: a page that is
-- loaded again is not "offline, online".
local function lose(user, connection, lease, gone, grace_ends)
  local key = presence(user)
  redis.call('ZREM', DUE, lease)
  redis.call('HDEL', leases(user), connection)
  -- They are heard of in any order: the one that went last may have been told of first.
  local known = redis.call('HMGET', key, 'gone', 'grace')
  gone = math.max(gone, tonumber(known[1] or '0'))
  grace_ends = math.max(grace_ends, tonumber(known[2] or '0'))
  redis.call('HSET', key, 'gone', text(gone), 'grace', text(grace_ends))
  if is_connected(user) then return end
  redis.call('HSET', key, 'seen', text(gone))
  redis.call('ZADD', GRACE, text(grace_ends), user)
end

local told = {}

if operation == 'open' then
  -- connection, node, user, user agent, end of the lease, end of the node's own, how long a directory entry stands
  local connection, node, user, agent = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  local key = presence(user)
  redis.call('HSET', leases(user), connection, node .. ' - ' .. agent)
  redis.call('ZADD', DUE, ARGV[8], node .. ' ' .. connection .. ' ' .. user)
  redis.call('ZADD', NODES, ARGV[9], node)
  redis.call('ZREM', GRACE, user)
  redis.call('PERSIST', key)
  touch(user, now)
  refresh(user)
  claim(user, told)
  local listed = tonumber(redis.call('HGET', key, 'listed') or '0')
  local tell = listed + tonumber(ARGV[10]) < now
  if tell then redis.call('HSET', key, 'listed', text(now)) end
  return { tell and 1 or 0, told }

elseif operation == 'close' then
  -- connection, node, user, end of the grace, how long a lease is where the peer was lost in silence (else 0)
  local connection, user = ARGV[4], ARGV[6]
  local lease = ARGV[5] .. ' ' .. connection .. ' ' .. user
  local gone, silent_ms = now, tonumber(ARGV[8])
  if silent_ms > 0 then gone = tonumber(redis.call('ZSCORE', DUE, lease) or text(now + silent_ms)) - silent_ms end
  -- Remembered for longer than a report of its last signs of life can take.
  redis.call('ZADD', CLOSED, text(now), connection)
  redis.call('ZREMRANGEBYSCORE', CLOSED, '-inf', text(now - 60000))
  redis.call('PEXPIRE', CLOSED, 60000)
  lose(user, connection, lease, gone, tonumber(ARGV[7]))

elseif operation == 'renew' then
  -- node, end of the leases, end of the node's own, then connection, user, and when the person was active, or `-`
  local node = ARGV[4]
  redis.call('ZADD', NODES, ARGV[6], node)
  for i = 7, #ARGV, 3 do
    local connection, user = ARGV[i], ARGV[i + 1]
    -- A report may come after the end of its connection; what has ended stays so.
    if not redis.call('ZSCORE', CLOSED, connection) then
      redis.call('ZADD', DUE, ARGV[5], node .. ' ' .. connection .. ' ' .. user)
      if redis.call('HSETNX', leases(user), connection, node .. ' - -') == 1 then
        redis.call('ZREM', GRACE, user)
        redis.call('PERSIST', presence(user))
      end
      touch(user, tonumber(ARGV[i + 2]))
      refresh(user)
      claim(user, told)
    end
  end

elseif operation == 'set' then
  -- user, status: `online` forgets what was chosen before
  local user, key = ARGV[4], presence(ARGV[4])
  if ARGV[5] == 'online' then
    redis.call('HDEL', key, 'hand', 'hand_at')
  else
    redis.call('HSET', key, 'hand', ARGV[5], 'hand_at', text(now))
  end
  -- Without a lease Redis has lost it, and the next report brings both.
  if is_connected(user) then
    touch(user, now)
    refresh(user)
    claim(user, told)
  end

elseif operation == 'focus' then
  -- user, connection, conversation or `none`
  local lease = redis.call('HGET', leases(ARGV[4]), ARGV[5])
  local node, agent = string.match(lease or '', '^(%S+) %S+ (.*)$')
  if node then redis.call('HSET', leases(ARGV[4]), ARGV[5], node .. ' ' .. ARGV[6] .. ' ' .. agent) end

elseif operation == 'reap' then
  -- A dead node's leases, which ended when it was last heard of: node. Returns the connections.
  local ended, prefix = {}, ARGV[4] .. ' '
  local gone = tonumber(redis.call('ZSCORE', NODES, ARGV[4]) or text(now)) - tonumber(ARGV[5])
  for _, lease in ipairs(redis.call('ZRANGE', DUE, 0, -1)) do
    if string.sub(lease, 1, #prefix) == prefix then
      local connection, user = string.match(lease, '^%S+ (%S+) (.*)$')
      lose(user, connection, lease, math.min(gone, now), now)
      ended[#ended + 1] = connection
    end
  end
  redis.call('ZREM', NODES, ARGV[4])
  return ended

elseif operation == 'sweep' then
  -- how many at most, how long a lease is, 1 while nobody is announced as gone because Redis was empty a moment ago
  local most, lease_ms = ARGV[4], tonumber(ARGV[5])
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, most)) do
    local connection, user = string.match(lease, '^%S+ (%S+) (.*)$')
    -- Silent for a whole lease: no further grace.
    lose(user, connection, lease, redis.call('ZSCORE', DUE, lease) - lease_ms, now)
  end
  if ARGV[6] ~= '1' then
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', GRACE, '-inf', text(now), 'LIMIT', 0, most)) do
      redis.call('ZREM', GRACE, user)
      refresh(user)
    end
  end
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', IDLE, '-inf', text(now), 'LIMIT', 0, most)) do
    redis.call('ZREM', IDLE, user)
    refresh(user)
  end
  for _, user in ipairs(redis.call('ZRANGE', CHANGED, 0, tonumber(most) - 1)) do claim(user, told) end

elseif operation == 'settle' then
  -- Told and committed: user, status, version, and the version that Postgres has now; again and again.
  for i = 4, #ARGV, 4 do
    local user, key = ARGV[i], presence(ARGV[i])
    local known = redis.call('HMGET', key, 'version', 'status')
    if known[1] ~= ARGV[i + 2] then
      -- It has changed since; what it is now is told in its turn.
    elseif tonumber(ARGV[i + 3]) > tonumber(known[1]) then
      -- From before Redis was lost, by a clock that was ahead: told once more, above it.
      local version = text(tonumber(ARGV[i + 3]) + 1)
      redis.call('HSET', key, 'version', version)
      redis.call('ZADD', CHANGED, version, user)
    else
      redis.call('HSET', key, 'told', ARGV[i + 1])
      redis.call('ZREM', CHANGED, user)
      if known[2] == 'offline' then redis.call('EXPIRE', key, FORGET_S) end
    end
  end

else
  return redis.error_reply('presence: no operation ' .. operation)
end

return told
