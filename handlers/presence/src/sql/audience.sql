-- Where these people's presence is seen: $1 who · $2 the largest conversation that hears of it. The conversations in which
-- each is engaged, the newest 500 of each, and at most two people of each conversation who are not engaged there and so
-- see nothing.
select person.user_id, theirs.conversation_id,
  array(
    select unengaged.user_id from app.participants as unengaged
    where unengaged.conversation_id = theirs.conversation_id and unengaged.left_at is null and not unengaged.engaged
    order by unengaged.user_id
    limit 2) as unengaged
from unnest($1::text[]) as person(user_id)
cross join lateral (
  select conversation_id
  from app.participants as seat
  where seat.user_id = person.user_id and seat.left_at is null and seat.engaged
  order by conversation_id desc
  limit 500) as theirs
where (
  select count(*) from (
    select from app.participants as present
    where present.conversation_id = theirs.conversation_id and present.left_at is null
    limit $2::int + 1) as counted) <= $2
