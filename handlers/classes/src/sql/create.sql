-- A class for a conversation that was made for it, with its first teacher: $1 id · $2 conversation · $3 name · $4 code
-- $5 description · $6 teacher · $7 now in milliseconds · $8 id of the event
with
created as (
  insert into app.classes as class (
    id, conversation_id, name, code, description, created_by, created_at, updated_at)
  select $1::uuid, $2::uuid, $3::text, $4::text, $5::text, $6::text, at, at
  from (select to_timestamp($7::bigint / 1000.0) as at) as now
  returning class.*
),
teaching as (
  insert into app.class_members (class_id, user_id, role, joined_at)
  select id, created_by, 'teacher', created_at from created
)
insert into switchboard.outbox (shard, position, id, event_type, key, payload)
select
  shard, switchboard.next_position(shard), $8::uuid, 'class.created', key,
  ('{"class":' || text || ',"by":' || to_json($6) || '}')::json
from (
  select key, switchboard.shard(key) as shard, text
  from (select 'conv:' || conversation_id as key, app.class_text(created) as text from created) as keyed) as event
