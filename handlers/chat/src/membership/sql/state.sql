-- A conversation as it stands under its lock: $1 id · $2 who asks · $3 whom it is about · $4 where this month's ids begin
-- $5 as many participants as are counted where it has no capacity
select
  conversation.kind,
  conversation.visibility = 'public' as public,
  conversation.archived_at is not null as archived,
  conversation.capacity::bigint as capacity,
  (select count(*) from (
    select from app.participants as present
    where present.conversation_id = conversation.id and present.left_at is null
    limit coalesce(conversation.capacity, $5::int)) as counted) as present,
  asker.role as asker,
  subject.role as subject,
  head.seq as head_seq,
  head.id as head_id,
  switchboard.shard('conv:' || conversation.id)::int as shard
from app.conversations as conversation
cross join app.head(conversation.id, $4::uuid) as head
left join app.participants as asker
  on asker.conversation_id = conversation.id and asker.user_id = $2 and asker.left_at is null
left join app.participants as subject
  on subject.conversation_id = conversation.id and subject.user_id = $3 and subject.left_at is null
where conversation.id = $1::uuid and conversation.deleted_at is null
