-- Where a conversation stands now: $1 id · $2 where this month's ids begin.
select
  head.seq,
  coalesce((
    select change.change from app.message_changes as change
    where change.conversation_id = $1::uuid
    order by change.change desc limit 1), 0) as change
from app.head($1::uuid, $2::uuid) as head
