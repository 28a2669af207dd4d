-- Where it is heard that these people changed: $1 who · $2 the largest conversation that hears of it. Their conversations,
-- the newest 500 of each.
select person.user_id, theirs.conversation_id
from unnest($1::text[]) as person(user_id)
cross join lateral (
  select conversation_id
  from app.participants as seat
  where seat.user_id = person.user_id and seat.left_at is null
  order by conversation_id desc
  limit 500) as theirs
where (
  select count(*) from (
    select from app.participants as present
    where present.conversation_id = theirs.conversation_id and present.left_at is null
    limit $2::int + 1) as counted) <= $2
