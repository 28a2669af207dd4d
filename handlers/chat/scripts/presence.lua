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
--                    told           the status that Postgres has; empty while an announcement is under way
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

local LEASES, PRESENCE = tag .. ':leases:', tag .. ':presence:'

local function leases(user) return LEASES .. user end
local function presence(user) return PRESENCE .. user end
-- A number as text. Most are the same few times, and formatting takes as long as a command.
local texts = {}
local function text(number)
  local known = texts[number]
  if not known then
    known = string.format('%.0f', number)
    texts[number] = known
  end
  return known
end
-- Whether the partition has no entries. `nodes` and `closed` do not count: nothing in them becomes due.
local function is_empty() return redis.call('EXISTS', DUE, GRACE, IDLE, CHANGED) == 0 end
local function is_connected(user) return redis.call('EXISTS', leases(user)) == 1 end

-- Runs one command with a list of members, of scores and members, or of keys. Lua passes a few thousand
-- arguments at most.
local function each(command, key, list)
  for i = 1, #list, 1000 do
    local last = math.min(i + 999, #list)
    if key then redis.call(command, key, unpack(list, i, last)) else redis.call(command, unpack(list, i, last)) end
  end
end

-- The status that follows from the other fields of a user.
local function status_of(connected, hand, active)
  if not connected then return 'offline' end
  if hand then return hand end
  if tonumber(active or '0') + idle_ms <= now then return 'away' end
  return 'online'
end

-- The version of a new status. For a user without a version, a status may have been announced before Redis
-- lost its data. That version may be a little ahead of the clock.
local function version_after(version)
  return text(version and math.max(tonumber(version) + 1, now) or now + UNKNOWN_MS)
end

-- Appends the change of a user.
local function append(into, user, status, version, seen)
  local n = #into
  into[n + 1], into[n + 2], into[n + 3], into[n + 4] = user, status, version, seen
end

-- Derives the user's status from the other fields. A new status gets a new version and is marked for
-- announcement.
local function refresh(user)
  local key = presence(user)
  local known = redis.call('HMGET', key, 'status', 'hand', 'active', 'version')
  local connected = is_connected(user)
  if not connected then
    -- In the grace the user keeps the former status.
    if redis.call('ZSCORE', GRACE, user) then return end
    redis.call('HDEL', key, 'hand', 'hand_at')
    redis.call('ZREM', IDLE, user)
  end
  local status = status_of(connected, known[2], known[3])
  if status == known[1] then return end
  local version = version_after(known[4])
  redis.call('HSET', key, 'status', status, 'version', version)
  redis.call('ZADD', CHANGED, version, user)
end

-- Whether the last attempt to announce a user's status is long enough ago.
local function may_announce(claimed) return not claimed or tonumber(claimed) + APART_MS <= now end

-- Claims the change of a user that is to be announced now: appends user, status, version and last seen.
local function claim(user, into)
  if not redis.call('ZSCORE', CHANGED, user) then return end
  local key = presence(user)
  local known = redis.call('HMGET', key, 'status', 'told', 'claimed', 'version', 'seen')
  if not known[1] or known[1] == known[2] then
    redis.call('ZREM', CHANGED, user)
    return
  end
  if not may_announce(known[3]) then return end
  -- Until the change is settled, the status in Postgres is unknown, so any later status is announced.
  redis.call('HSET', key, 'claimed', text(now), 'told', '')
  append(into, user, known[1], known[4], known[5] or text(now))
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

-- Which of these users have a connection. Mostly all or none have one, and then one command tells it.
local function connected_of(users)
  local keys, count, connected = {}, 0, {}
  if #users == 0 then return connected end
  for i = 1, #users do keys[i] = leases(users[i]) end
  for i = 1, #keys, 1000 do
    count = count + redis.call('EXISTS', unpack(keys, i, math.min(i + 999, #keys)))
  end
  if count == 0 then return connected end
  for _, user in ipairs(users) do
    if count == #users or is_connected(user) then connected[user] = true end
  end
  return connected
end

-- Ends leases, which the caller has taken out of `due`. `ended` has each lease and the time of its
-- connection's last sign of life. `others` has all other leases of the partition, if the caller knows them:
-- `due` and `leases` have the same connections, so one command ends those of users without another one.
-- Returns the users, the latest of these times by user, and which users have a connection.
local function end_leases(ended, others)
  local users, gone, connected, unused = {}, {}, {}, {}
  if others then
    for _, lease in ipairs(others) do connected[string.match(lease, '^%S+ %S+ (.*)$')] = true end
  end
  for i = 1, #ended, 2 do
    local connection, user = string.match(ended[i], '^%S+ (%S+) (.*)$')
    local at, known = ended[i + 1], gone[user]
    if not known or known < at then gone[user] = at end
    if not known then users[#users + 1] = user end
    if not others or connected[user] then
      redis.call('HDEL', leases(user), connection)
    elseif not known then
      unused[#unused + 1] = leases(user)
    end
  end
  each('UNLINK', nil, unused)
  if not others then connected = connected_of(users) end
  return users, gone, connected
end

-- Ends leases, and gives their users a grace if they have no other connection. So a reload of a page does not
-- announce `offline` and `online`.
local function lose(ended, others, grace_ends)
  local members, graces = {}, {}
  for i = 1, #ended, 2 do members[#members + 1] = ended[i] end
  each('ZREM', DUE, members)
  local users, gone, connected = end_leases(ended, others)
  for _, user in ipairs(users) do
    local key = presence(user)
    -- The ends of connections are reported in any order, so the latest time counts.
    local known = redis.call('HMGET', key, 'gone', 'grace')
    local gone_at = text(math.max(gone[user], tonumber(known[1] or '0')))
    local ends = text(math.max(grace_ends, tonumber(known[2] or '0')))
    if connected[user] then
      redis.call('HSET', key, 'gone', gone_at, 'grace', ends)
    else
      redis.call('HSET', key, 'gone', gone_at, 'grace', ends, 'seen', gone_at)
      graces[#graces + 1] = ends
      graces[#graces + 1] = user
    end
  end
  each('ZADD', GRACE, graces)
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
  lose({ lease, gone }, nil, tonumber(ARGV[7]))
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
  local leases_of_node, others = {}, {}
  for _, lease in ipairs(redis.call('ZRANGE', DUE, 0, -1)) do
    if string.sub(lease, 1, #prefix) == prefix then
      leases_of_node[#leases_of_node + 1] = lease
      leases_of_node[#leases_of_node + 1] = math.min(gone, now)
      ended[#ended + 1] = string.match(lease, '^%S+ (%S+) ')
    else
      others[#others + 1] = lease
    end
  end
  lose(leases_of_node, others, now)
  redis.call('ZREM', NODES, ARGV[4])
  return ended

elseif operation == 'sweep' then
  -- ARGV: maximum number of entries of each set, length of a lease, `1` if the leases are young, so that no
  -- user is announced as offline.
  --
  -- When a node dies or Redis was away, hundreds of users of a partition are due at once. So a sweep reads
  -- and writes the fields of each user once, and changes the sets for all users at once.
  local most, lease_ms, young, now_text = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1', text(now)
  -- Takes the members that are due out of a set.
  local function take(set, ...)
    local due = redis.call('ZRANGEBYSCORE', set, '-inf', now_text, 'LIMIT', 0, most, ...)
    local count = select('#', ...) == 0 and #due or #due / 2
    if count > 0 then redis.call('ZREMRANGEBYRANK', set, 0, count - 1) end
    return due
  end
  -- These connections sent no sign of life for a whole lease, so there is no further grace.
  local ended = take(DUE, 'WITHSCORES')
  for i = 2, #ended, 2 do ended[i] = ended[i] - lease_ms end
  local others
  -- When most leases have ended, it is less work to read the others than to look at each user.
  if #ended > 0 and redis.call('ZCARD', DUE) <= #ended / 2 then others = redis.call('ZRANGE', DUE, 0, -1) end
  local users, gone, connected = end_leases(ended, others)
  local is_over, is_known, rest = {}, {}, {}
  local function add(user)
    if gone[user] or is_known[user] then return end
    is_known[user] = true
    users[#users + 1] = user
    rest[#rest + 1] = user
  end
  if not young then
    for _, user in ipairs(take(GRACE)) do
      is_over[user] = true
      add(user)
    end
  end
  for _, user in ipairs(take(IDLE)) do add(user) end

  if not others then
    for user in pairs(connected_of(rest)) do connected[user] = true end
  end
  local space = most - redis.call('ZCARD', CHANGED)
  local fields, graces, offline, changed, undone, decided = {}, {}, {}, {}, {}, {}
  for _, user in ipairs(users) do
    local key, is_here, gone_at, in_grace, n = presence(user), connected[user], gone[user], false, 0
    local known
    if gone_at and not is_here then
      known = redis.call('HMGET', key, 'status', 'hand', 'version', 'told', 'claimed', 'gone', 'grace')
    else
      known = redis.call('HMGET', key, 'status', 'hand', 'version', 'told', 'claimed', 'gone', 'grace', 'active',
        'seen')
    end
    local seen = known[9]
    if gone_at then
      -- The ends of connections are reported in any order, so the latest time counts.
      if known[6] then gone_at = math.max(gone_at, tonumber(known[6])) end
      gone_at = text(gone_at)
      fields[1], fields[2], n = 'gone', gone_at, 2
      if not is_here then
        fields[3], fields[4], n, seen = 'seen', gone_at, 4, gone_at
        local in_future = known[7] and tonumber(known[7]) > now
        in_grace = young or in_future
        if in_grace then
          graces[#graces + 1] = in_future and known[7] or now_text
          graces[#graces + 1] = user
        end
      end
    elseif not is_here and not is_over[user] then
      in_grace = redis.call('ZSCORE', GRACE, user)
    end
    -- In the grace the user keeps the former status.
    if not in_grace then
      local status = status_of(is_here, known[2], known[8])
      if not is_here then
        offline[#offline + 1] = user
        if known[2] then redis.call('HDEL', key, 'hand', 'hand_at') end
      end
      if status ~= known[1] then
        local version = version_after(known[3])
        fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'status', status, 'version', version
        n = n + 4
        decided[user] = true
        if status == known[4] then
          undone[#undone + 1] = user
        else
          changed[#changed + 1] = version
          changed[#changed + 1] = user
          -- As `claim` does, with the fields at hand. Changes that wait have precedence.
          if space > 0 and may_announce(known[5]) then
            space = space - 1
            fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'claimed', now_text, 'told', ''
            n = n + 4
            append(told, user, status, version, seen or now_text)
          end
        end
      end
    end
    if n > 0 then redis.call('HSET', key, unpack(fields, 1, n)) end
  end
  each('ZREM', IDLE, offline)
  each('ZADD', GRACE, graces)
  each('ZADD', CHANGED, changed)
  each('ZREM', CHANGED, undone)
  for _, user in ipairs(redis.call('ZRANGE', CHANGED, 0, most - 1)) do
    if not decided[user] then claim(user, told) end
  end

elseif operation == 'settle' then
  -- ARGV, for each announced change: user, status, version, and the version that Postgres now has
  local settled = {}
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
      settled[#settled + 1] = user
      if known[2] == 'offline' then redis.call('EXPIRE', key, FORGET_S) end
    end
  end
  each('ZREM', CHANGED, settled)

else
  return redis.error_reply('presence: no operation ' .. operation)
end

return told
