-- What a person may know of others, and what was last told of them: $1 who asks · $2 about whom. Only those with whom they
-- share a conversation, and themselves.
with
mine as (
  select conversation_id from app.participants where user_id = $1 and left_at is null
),
visible as (
  select distinct other.user_id
  from app.participants as other
  join mine using (conversation_id)
  where other.user_id = any ($2::text[]) and other.left_at is null
    and exists (select from app.conversations as conversation
      where conversation.id = other.conversation_id and conversation.deleted_at is null)
  union
  select $1 where $1 = any ($2)
)
select user_id, known.status, (extract(epoch from known.last_seen) * 1000)::bigint as last_seen_ms
from visible left join app.presence as known using (user_id)
