-- A page of a list without Redis: $1 who · $2 after which activity · $3 how many · $4 where this month's ids begin.
with page as (
  select participant.*, head.id as head_id, head.activity
  from app.participants as participant
  left join lateral (
    select head.seq, head.id, coalesce(head.id, participant.conversation_id) as activity
    from app.head(participant.conversation_id, $4::uuid) as head) as head on true
  where participant.user_id = $1 and participant.left_at is null
    and (participant.hidden_seq is null or head.seq > participant.hidden_seq)
    and head.activity < $2::uuid
    and exists (select from app.conversations as conversation
      where conversation.id = participant.conversation_id and conversation.deleted_at is null)
  order by head.activity desc
  limit $3::int
)
select
  page.activity,
  -- The object with the user's own settings, and without its last brace: the handler adds the other fields.
  left(app.conversation_text(conversation), -1) || ',"my_role":"' || page.role || '","notifications":"'
    || page.notifications || '"' as text,
  since.through_seq as last_read_seq,
  since.unread,
  coalesce((select app.preview_text(message) from app.messages as message where message.id = page.head_id), 'null') as last,
  case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end as peer,
  (select app.profile_text(person) from app.users as person
    where person.id = case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end)
    as profile,
  -- The direct conversation itself is the cheapest to ask, and nearly always enough.
  conversation.direct_low is not null and (
    (page.engaged and exists (
      select from app.participants as peer
      where peer.conversation_id = conversation.id and peer.user_id <> $1 and peer.left_at is null and peer.engaged))
    or app.sees($1,
      case when conversation.direct_low = $1 then conversation.direct_high else conversation.direct_low end)) as is_seen
from page
join app.conversations as conversation on conversation.id = page.conversation_id
cross join lateral app.unread(page.conversation_id, $1, page.last_read_seq) as since
order by page.activity desc
