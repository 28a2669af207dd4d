-- The unread notifications of what people have read: $1 JSON, who has read which conversation up to which seq · $2 at most
-- so many. `case` keeps the number from being read where other notifications have no number.
with asked as materialized (
  select * from json_to_recordset($1::json) as asked(conversation_id text, user_id text, up_to_seq bigint)
)
select notification.id, asked.user_id, asked.conversation_id
from asked
cross join lateral (
  select notification.id from app.notifications as notification
  where notification.user_id = asked.user_id and notification.data ->> 'conversation_id' = asked.conversation_id
    and notification.read_at is null and notification.deleted_at is null
    and notification.type in ('new_message', 'mention')
    and case when notification.type in ('new_message', 'mention') then (notification.data ->> 'seq')::bigint end
      <= asked.up_to_seq
  offset 0) as notification
limit $2::int
