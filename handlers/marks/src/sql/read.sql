-- Raise read marks, and tell each reader what is unread now: $1 calls · $2 users · $3 `read` · $4 positions, one each.
select marked.call, marked.moved, marked.shard, unread.through_seq, unread.unread
from app.mark($1::int[], $2::text[], $3::text[], $4::json[]) as marked
join unnest($1, $2) as asked(call, user_id) on asked.call = marked.call
cross join lateral app.unread(marked.conversation_id, asked.user_id, marked.up_to_seq) as unread
