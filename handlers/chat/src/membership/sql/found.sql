-- A conversation, its people, its first message and its events. No row when the direct conversation of this pair exists.
-- Nobody knows the id yet, so nothing needs to be locked.
-- $1 id · $2 kind · $3 name · $4 slug · $5 description · $6 settings · $7 visibility · $8 capacity · $9, $10 the pair
-- $11 owner · $12 the others · $13 id of the message · $14 what it says · $15 id of the event · $16 now in milliseconds
with
created as (
  insert into app.conversations as conversation (
    id, kind, name, slug, description, settings, visibility, capacity, direct_low, direct_high, created_by, created_at,
    updated_at)
  select $1::uuid, $2::text, $3::text, $4::text, $5::text, $6::jsonb, $7::text, $8::int, $9::text, $10::text, $11::text,
    at, at
  from (select to_timestamp($16::bigint / 1000.0) as at) as now
  on conflict (direct_low, direct_high) where direct_low is not null do nothing
  returning conversation.*
),
people as (
  insert into app.participants as participant (
    conversation_id, user_id, role, joined_at, last_read_seq, delivered_seq, engaged)
  select
    created.id, person,
    case when created.kind <> 'direct' and person = $11 then 'owner' else 'member' end,
    created.created_at, 1, 1, person = $11
  from created, unnest(array[$11] || $12::text[]) as person
  returning participant.*
),
said as (
  insert into app.messages as message (id, conversation_id, seq, sender_id, type, content, created_at)
  select $13::uuid, id, 1, $11, 'system', $14::text, created_at from created
  returning message.id, message.conversation_id, message.epoch, app.message_text(message,
    (select app.profile_text(person) from app.users as person where person.id = $11)) as text
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select shard, switchboard.next_position(shard), event_id, event_type, key, payload
  from (
    select 1 as place, switchboard.shard('conv:' || id) as shard, 'conv:' || id as key, $15::uuid as event_id,
      'conversation.created' as event_type,
      ('{"conversation":' || app.conversation_text(created) || ',"by":' || to_json($11)
        || ',"participants":' || (select json_agg(json_build_object('user_id', user_id, 'role', role)) from people)
        || '}')::json as payload
    from created
    union all
    select 2, switchboard.shard('conv:' || conversation_id), 'conv:' || conversation_id, id, 'message.created',
      ('{"conversation_id":"' || conversation_id || '","seq":1'
        || case when epoch > 0 then ',"epoch":' || epoch else '' end || ',"message":' || text || '}')::json
    from said
    order by place) as ordered
)
select
  created.id,
  switchboard.shard('conv:' || created.id)::int as shard
from created
