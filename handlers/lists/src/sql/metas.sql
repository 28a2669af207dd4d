-- What Redis keeps of conversations: $1 which · $2 where this month's ids begin. One snapshot for each, so that the last
-- message is the one of this seq after this many changes.
select
  conversation.id,
  coalesce(head.seq, 0) as head,
  coalesce(head.id, conversation.id) as activity,
  coalesce((
    select changed.change from app.message_changes as changed
    where changed.conversation_id = conversation.id
    order by changed.change desc limit 1), 0) as change,
  coalesce((select app.preview_text(message) from app.messages as message where message.id = head.id), 'null') as last
from unnest($1::uuid[]) as asked(id)
join app.conversations as conversation on conversation.id = asked.id and conversation.deleted_at is null
left join lateral app.head(conversation.id, $2::uuid) as head on true
