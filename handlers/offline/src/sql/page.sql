-- The oldest of the messages that were sent while a person was away: $1 who · $2 conversations · $3 after which seq of each
-- · $4 the first id of the absence · $5 how many at most.
--
-- Within a conversation the order is seq. Between conversations it is the time in the ids, which never falls within a
-- conversation; ids that were made before they strictly increased can be in another order within a millisecond.
select
  page.conversation_id, page.seq,
  '{"type":"message.new","payload":{"conversation_id":"' || page.conversation_id || '","message":'
    || app.message_text(page.whole, app.profile_text(sender)) || '}}' as frame
from (
  select message.*
  from unnest($2::uuid[], $3::bigint[]) as asked(conversation_id, after_seq)
  cross join lateral (
    select message as whole, left(message.id::text, 13) as at, message.conversation_id, message.seq, message.sender_id
    from app.messages as message
    where message.conversation_id = asked.conversation_id and message.seq > asked.after_seq
      and message.id >= $4::uuid and message.sender_id <> $1
    order by message.seq
    limit $5::int) as message
  order by message.at, message.conversation_id, message.seq
  limit $5) as page
left join app.users as sender on sender.id = page.sender_id
order by page.at, page.conversation_id, page.seq
