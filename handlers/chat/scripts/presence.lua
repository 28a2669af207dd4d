-- Decides the presence of users. Each change of a user's presence is one run of this script. So the announced
-- status is right for any order of opens, closes, sweeps and node crashes; `tests/it/transitions.rs` tests
-- random orders.
--
-- KEYS[1]: the sorted set `due` of a partition.
-- ARGV: operation, present time, time without activity after which a user is `away`, then the operation's own
-- arguments. All keys of a partition have the same hash tag. The keys of a user:
--   leases:{user}    connection -> `node focus user-agent`
--   presence:{user}  status
--                    version        increases with each status
--                    told           the status that Postgres has
--                    claimed        the time of the last attempt to announce the status
--                    hand, hand_at  the status that the user chose (`busy` or `away`), and when
--                    active         the last activity of the user
--                    seen           the last sign of life of any connection
--                    gone           the time when the last connection ended
--                    grace          the end of the grace, in which the user may connect again
--                    listed         the time when the directory entry was last written
-- The sorted sets of the partition:
--   due      `node connection user` by the end of the lease
--   closed   connections by the time of their close
--   grace    users without a connection by the end of their grace
--   idle     users by the time when they become `away`
--   nodes    nodes with leases by the end of the node's lease
--   changed  users whose status is to be announced, by version
local tag = string.match(KEYS[1], '^({.-})')
local operation, now, idle_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local DUE, CLOSED, GRACE = tag .. ':due', tag .. ':closed', tag .. ':grace'
local IDLE, NODES, CHANGED = tag .. ':idle', tag .. ':nodes', tag .. ':changed'
-- The minimum interval of two announcements of one user. The sweep announces a change within the interval
-- later.
local APART_MS = 250
-- Added to the present time for a user without a known version. A former version is never further ahead of
-- the clock.
local UNKNOWN_MS = 1000
-- The lifetime of an offline user's keys. Postgres has the time when the user was last seen.
local FORGET_S = 86400

local function leases(user) return tag .. ':leases:' .. user end
local function presence(user) return tag .. ':presence:' .. user end
local function text(number) return string.format('%.0f', number) end
-- Whether the partition has no entries. `nodes` and `closed` do not count: nothing in them becomes due.
local function is_empty() return redis.call('EXISTS', DUE, GRACE, IDLE, CHANGED) == 0 end
local function is_connected(user) return redis.call('EXISTS', leases(user)) == 1 end

-- Derives the user's status from the other fields. A new status gets a new version and is marked for
-- announcement.
local function refresh(user)
  local key = presence(user)
  local known = redis.call('HMGET', key, 'status', 'hand', 'active', 'version')
  local status
  if not is_connected(user) then
    -- In the grace the user keeps the former status.
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
  -- For a user without a version, a status may have been announced before Redis lost its data. That version
  -- may be a little ahead of the clock.
  local version = known[4] and math.max(tonumber(known[4]) + 1, now) or now + UNKNOWN_MS
  redis.call('HSET', key, 'status', status, 'version', text(version))
  redis.call('ZADD', CHANGED, text(version), user)
end

-- Claims the change of a user that is to be announced now: appends user, status, version and last seen.
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
  -- Until the change is settled, the status in Postgres is unknown, so any later status is announced.
  redis.call('HDEL', key, 'told')
  into[#into + 1] = user
  into[#into + 1] = known[1]
  into[#into + 1] = known[4]
  into[#into + 1] = known[5] or text(now)
end

-- Records a sign of life. `active` is the time of the user's last activity, or nil. A report may be late, so
-- it does not override a status that the user chose after that time. After a loss of Redis, the first report
-- restores all fields.
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

-- Ends the lease of a connection, whose last sign of life was at `gone`. A user without another connection
-- gets a grace, so that a reload of a page does not announce `offline` and `online`.
local function lose(user, connection, lease, gone, grace_ends)
  local key = presence(user)
  redis.call('ZREM', DUE, lease)
  redis.call('HDEL', leases(user), connection)
  -- The ends of connections are reported in any order, so the latest time counts.
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
  -- ARGV: connection, node, user, user agent, end of the lease, end of the node's lease, lifetime of a
  -- directory entry. Returns 1 if the directory entry is to be written, the change, and 1 if the partition
  -- had no entries
  local was_empty = is_empty()
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
  return { tell and 1 or 0, told, was_empty and 1 or 0 }

elseif operation == 'close' then
  -- ARGV: connection, node, user, end of the grace, length of a lease if the peer was lost without notice
  -- (otherwise 0). Returns 1 if the partition had no entries
  local was_empty = is_empty()
  local connection, user = ARGV[4], ARGV[6]
  local lease = ARGV[5] .. ' ' .. connection .. ' ' .. user
  local gone, silent_ms = now, tonumber(ARGV[8])
  if silent_ms > 0 then gone = tonumber(redis.call('ZSCORE', DUE, lease) or text(now + silent_ms)) - silent_ms end
  -- A late report of the connection must not restore its lease, so the close is stored for longer than a
  -- report can take.
  redis.call('ZADD', CLOSED, text(now), connection)
  redis.call('ZREMRANGEBYSCORE', CLOSED, '-inf', text(now - 60000))
  redis.call('PEXPIRE', CLOSED, 60000)
  lose(user, connection, lease, gone, tonumber(ARGV[7]))
  return { was_empty and 1 or 0 }

elseif operation == 'renew' then
  -- ARGV: node, end of the leases, end of the node's lease, then for each connection: connection, user, time
  -- of the user's last activity or `-`
  local node = ARGV[4]
  redis.call('ZADD', NODES, ARGV[6], node)
  for i = 7, #ARGV, 3 do
    local connection, user = ARGV[i], ARGV[i + 1]
    -- A report may arrive after the close of its connection. The connection stays closed.
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
  -- ARGV: user, status. `online` deletes the status that was chosen before.
  local user, key = ARGV[4], presence(ARGV[4])
  if ARGV[5] == 'online' then
    redis.call('HDEL', key, 'hand', 'hand_at')
  else
    redis.call('HSET', key, 'hand', ARGV[5], 'hand_at', text(now))
  end
  -- Without a lease, Redis has lost it. The next report restores the lease and refreshes the status.
  if is_connected(user) then
    touch(user, now)
    refresh(user)
    claim(user, told)
  end

elseif operation == 'focus' then
  -- ARGV: user, connection, conversation or `none`
  local lease = redis.call('HGET', leases(ARGV[4]), ARGV[5])
  local node, agent = string.match(lease or '', '^(%S+) %S+ (.*)$')
  if node then redis.call('HSET', leases(ARGV[4]), ARGV[5], node .. ' ' .. ARGV[6] .. ' ' .. agent) end

elseif operation == 'reap' then
  -- ARGV: node, length of a node's lease. Ends the leases of a dead node, as of the node's last sign of life.
  -- Returns its connections.
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
  -- ARGV: maximum number of entries of each set, length of a lease, `1` if the leases are young, so that no
  -- user is announced as offline
  local most, lease_ms = ARGV[4], tonumber(ARGV[5])
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, most)) do
    local connection, user = string.match(lease, '^%S+ (%S+) (.*)$')
    -- The connection sent no sign of life for a whole lease, so there is no further grace.
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
  -- ARGV, for each announced change: user, status, version, and the version that Postgres now has
  for i = 4, #ARGV, 4 do
    local user, key = ARGV[i], presence(ARGV[i])
    local known = redis.call('HMGET', key, 'version', 'status')
    if known[1] ~= ARGV[i + 2] then
      -- The status has changed again. Its change is announced on its own.
    elseif tonumber(ARGV[i + 3]) > tonumber(known[1]) then
      -- Postgres has a higher version, which a clock that was ahead made before Redis lost its data. The
      -- status is announced again with a version above it.
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
