-- Notifications that are complete, each for one person: $1 JSON.
with
given as materialized (
  select app.notification_id(event_id, position, user_id) as id, given.*
  from json_to_recordset($1::json) as given(
    event_id uuid, position bigint, user_id text, type text, level text, title text, body text, entity_type text,
    entity_id text, data json, at_ms bigint)
),
stored as (
  insert into app.notifications (id, user_id, type, level, title, body, entity_type, entity_id, data, created_at)
  select id, user_id, type, level, title, body, entity_type, entity_id, data, to_timestamp(at_ms / 1000.0)
  from given
  order by id
  on conflict (id) do nothing
  returning id
)
-- Also what was stored before, as long as it is news: whether it was pushed then, nobody knows.
select user_id, app.notification_text(id, user_id, type, level, title, body, entity_type, entity_id, data, null,
  to_timestamp(at_ms / 1000.0)) as notification
from given
where id in (select id from stored)
  or coalesce((select known.read_at is null and known.deleted_at is null
    from app.notifications as known where known.id = given.id), true)
