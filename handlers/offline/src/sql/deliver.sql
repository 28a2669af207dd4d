-- What was just sent is delivered: $1 who · $2 conversations · $3 through which seq of each.
update app.participants as participant
set delivered_seq = sent.seq
from unnest($2::uuid[], $3::bigint[]) as sent(conversation_id, seq)
where participant.conversation_id = sent.conversation_id and participant.user_id = $1
  and participant.left_at is null and participant.delivered_seq < sent.seq
