-- $1 conversation · $2 who
select app.participant_text(participant, app.profile_text(person)) as participant
from app.participants as participant
left join app.users as person on person.id = participant.user_id
where participant.conversation_id = $1::uuid and participant.user_id = $2 and participant.left_at is null
