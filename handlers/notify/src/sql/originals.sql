-- What edits replaced: $1 the ids of the edits, which are those of their events.
select change.id, change.original_content as content, change.original_mentions::text as mentions
from app.message_changes as change
where change.id = any($1::uuid[])
