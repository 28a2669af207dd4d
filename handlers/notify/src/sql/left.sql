-- The notifications of people about conversations that they are no longer in: $1 JSON, who left which conversation · $2 at
-- most so many. None for who is there again: they may read all of it.
with asked as materialized (
  select * from json_to_recordset($1::json) as asked(conversation_id text, user_id text)
)
select notification.id, asked.user_id, asked.conversation_id
from asked
cross join lateral (
  select notification.id from app.notifications as notification
  where notification.user_id = asked.user_id and notification.data ->> 'conversation_id' = asked.conversation_id
    and notification.deleted_at is null and notification.type in ('new_message', 'mention')
  offset 0) as notification
where not exists (
  select from app.participants as participant
  where participant.conversation_id = asked.conversation_id::uuid and participant.user_id = asked.user_id
    and participant.left_at is null)
limit $2::int
