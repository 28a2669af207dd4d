-- Who is there, by id: $1 conversation · $2 who asks · $3 after whom · $4 how many, one more than the page has.
-- No row at all for who is not there.
select participant.user_id, participant.text as participant
from app.participants as mine
join app.conversations as conversation on conversation.id = mine.conversation_id and conversation.deleted_at is null
left join lateral (
  select participant.user_id, app.participant_text(participant, app.profile_text(person)) as text
  from app.participants as participant
  left join app.users as person on person.id = participant.user_id
  where participant.conversation_id = mine.conversation_id and participant.left_at is null
    and participant.user_id > $3
  order by participant.user_id
  limit $4::int) as participant on true
where mine.conversation_id = $1::uuid and mine.user_id = $2 and mine.left_at is null
order by participant.user_id
