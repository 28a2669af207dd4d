-- What only Postgres is asked about conversations that Redis put in order: whether they are mine, what they are called,
-- and what I have not read of them, where the count in Redis is of another mark.
-- $1 who · $2 conversations · $3 the mark that each one's kept count starts from, null without one.
select
  participant.conversation_id as id,
  app.conversation_text(conversation) as text,
  participant.role,
  participant.notifications,
  participant.last_read_seq as mark,
  participant.hidden_seq,
  since.through_seq as last_read_seq,
  since.unread,
  case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end as peer,
  (select app.profile_text(person) from app.users as person
    where person.id = case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end)
    as profile
from unnest($2::uuid[], $3::bigint[]) as asked(id, mark)
join app.participants as participant
  on participant.conversation_id = asked.id and participant.user_id = $1 and participant.left_at is null
join app.conversations as conversation on conversation.id = asked.id and conversation.deleted_at is null
-- Nothing is unread in no conversation, and that takes no time; a condition beside it would be looked at after the count.
cross join lateral app.unread(
  case when asked.mark is distinct from participant.last_read_seq then asked.id end, $1, participant.last_read_seq) as since
