-- A class ends, and its conversation with it: everyone in it is told on their own connections, and their subscriptions
-- end. $1 class · $2 by whom · $3 now in milliseconds · $4 an id: each event has its time, and a digest of it and the person.
with
ended as (
  update app.classes set deleted_at = to_timestamp($3::bigint / 1000.0) where id = $1::uuid
  returning conversation_id, deleted_at
),
closed as (
  update app.conversations as conversation set deleted_at = ended.deleted_at
  from ended where conversation.id = ended.conversation_id
),
gone as (
  update app.participants as participant set left_at = ended.deleted_at
  from ended where participant.conversation_id = ended.conversation_id and participant.left_at is null
  returning participant.conversation_id, participant.user_id, participant.role
)
insert into switchboard.outbox (shard, position, id, event_type, key, payload)
select
  shard, switchboard.next_position(shard),
  (left($4::text, 14) || '7' || substr(digest, 1, 3) || '-8' || substr(digest, 4, 3) || '-' || substr(digest, 7, 12))::uuid,
  'conversation.participant.left', key,
  json_build_object(
    'conversation_id', conversation_id, 'user_id', user_id, 'role', role, 'by', $2::text, 'ended', true)
from (
  select gone.*, switchboard.shard(key) as shard, md5($4 || gone.user_id) as digest
  from (select 'conv:' || conversation_id as key, * from gone) as gone) as event
