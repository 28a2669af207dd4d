-- What only Postgres is asked about conversations that Redis put in order: whether they are mine, and what they are called.
-- Nothing of messages: to begin with those takes longer than all of this (`counts`). $1 who · $2 conversations.
select
  participant.conversation_id as id,
  -- The object with the user's own settings, and without its last brace: the handler adds the other fields.
  left(app.conversation_text(conversation), -1) || ',"my_role":"' || participant.role || '","notifications":"'
    || participant.notifications || '"' as text,
  participant.last_read_seq as mark,
  participant.hidden_seq,
  case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end as peer,
  (select app.profile_text(person) from app.users as person
    where person.id = case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end)
    as profile,
  -- The direct conversation itself is the cheapest to ask, and nearly always enough.
  conversation.direct_low is not null and (
    (participant.engaged and exists (
      select from app.participants as peer
      where peer.conversation_id = conversation.id and peer.user_id <> $1 and peer.left_at is null and peer.engaged))
    or app.sees($1,
      case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end)) as is_seen
from app.participants as participant
join app.conversations as conversation on conversation.id = participant.conversation_id and conversation.deleted_at is null
where participant.user_id = $1 and participant.conversation_id = any ($2::uuid[]) and participant.left_at is null
