-- The oldest of what was said to a person while they were away: $1 who · $2 conversations · $3 after which seq of each
-- · $4 the first id of their absence · $5 how many at most.
select
  page.conversation_id, page.seq,
  '{"type":"message.new","payload":{"conversation_id":"' || page.conversation_id || '","message":'
    || app.message_text(page.whole, app.profile_text(sender)) || '}}' as frame
from (
  select message.*
  from unnest($2::uuid[], $3::bigint[]) as asked(conversation_id, after_seq)
  cross join lateral (
    select message as whole, message.id, message.conversation_id, message.seq, message.sender_id
    from app.messages as message
    where message.conversation_id = asked.conversation_id and message.seq > asked.after_seq
      and message.id >= $4::uuid and message.sender_id <> $1
    order by message.seq
    limit $5::int) as message
  order by message.id
  limit $5) as page
left join app.users as sender on sender.id = page.sender_id
order by page.id
