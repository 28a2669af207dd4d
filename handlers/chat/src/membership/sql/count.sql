-- A user joins or leaves a large conversation: an event for the user's own connections, and one more change for the
-- others, who get the changes of an interval together. The shard to wake for these, if one is to be woken.
-- $1 conversation · $2 user · $3 role · $4 by whom · $5 `join` or `leave` · $6 the participants afterwards
-- $7 id of the event · $8 id of the event of the changes
with announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select
    shard, switchboard.next_position(shard), $7::uuid,
    case $5::text when 'join' then 'conversation.participant.joined' else 'conversation.participant.left' end, key,
    json_build_object('conversation_id', $1::uuid, 'user_id', $2::text, 'role', $3::text, 'by', $4::text, 'counted', true)
  from (select key, switchboard.shard(key) as shard from (select 'conv:' || $1::uuid as key) as named) as addressed
)
select app.members_changed(
  $1::uuid, $6::bigint,
  case $5 when 'join' then 1 else 0 end, case $5 when 'join' then people else '[]' end,
  case $5 when 'join' then 0 else 1 end, case $5 when 'join' then '[]' else people end,
  $8::uuid)::int as shard
from (
  select jsonb_build_array(jsonb_build_object('user_id', $2::text, 'role', $3::text, 'by', $4::text)) as people) as change
