-- What I have not read, where Redis has no count or an old one: $1 who · $2 conversations. As far as they are mine.
select participant.conversation_id as id, participant.last_read_seq as mark, since.through_seq as last_read_seq, since.unread
from app.participants as participant
cross join lateral app.unread(participant.conversation_id, $1, participant.last_read_seq) as since
where participant.user_id = $1 and participant.conversation_id = any ($2::uuid[]) and participant.left_at is null
