-- What a person may know of others, and what was last told of them: $1 who asks · $2 about whom, each once. Only those who
-- are engaged in a conversation in which the person is engaged too (as `app.sees` has it), and the person themself.
with
mine as materialized (
  select participant.conversation_id
  from app.participants as participant
  join app.conversations as conversation
    on conversation.id = participant.conversation_id and conversation.deleted_at is null
  where participant.user_id = $1 and participant.left_at is null and participant.engaged
),
-- Person by person, by the conversations that each is in: `offset 0` keeps it a probe, however large a shared one is.
visible as (
  select asked.user_id
  from unnest($2::text[]) as asked(user_id)
  where asked.user_id = $1 or exists (
    select from (
      select other.conversation_id from app.participants as other
      where other.user_id = asked.user_id and other.left_at is null and other.engaged
      offset 0) as theirs
    where theirs.conversation_id in (select conversation_id from mine))
)
select user_id, known.status, (extract(epoch from known.last_seen) * 1000)::bigint as last_seen_ms
from visible left join app.presence as known using (user_id)
