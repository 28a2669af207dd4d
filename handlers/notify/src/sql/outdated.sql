-- Notifications of a message that do not say what the message says now: $1 message · $2 characters of a message that a
-- notification repeats · $3 at most so many. No row where nothing is outdated.
with
message as materialized (
  select message.id, message.deleted_at is not null as deleted, left(message.content, $2::int) as body
  from app.messages as message
  where message.id = $1::uuid
),
-- The events that can have made one: the creation of the message and its edits.
made as (
  select id as made_by from message
  union all
  select change.id from message
  cross join lateral (
    select change.id from app.message_changes as change
    where change.message_id = message.id and change.kind = 'edit'
    offset 0) as change
)
select notification.id, notification.user_id, message.deleted, message.body
from made
cross join message
-- By the ids alone: of a table that was never analysed the planner would rather read a whole index of the other conditions.
cross join lateral (
  select notification.* from app.notifications as notification
  where notification.id >= app.notification_low(made.made_by) and notification.id <= app.notification_high(made.made_by)
  offset 0) as notification
where notification.deleted_at is null and notification.type in ('new_message', 'mention')
  and notification.entity_id = message.id::text
  and (message.deleted or notification.body is distinct from message.body)
limit $3::int
