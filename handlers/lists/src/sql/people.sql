-- The next people who are anywhere: $1 after whom · $2 how many. From one to the next along the index, however many
-- conversations each has.
with recursive person as (
  (select user_id, 1 as nth from app.participants
    where left_at is null and user_id > $1::text order by user_id limit 1)
  union all
  select next.user_id, person.nth + 1
  from person
  cross join lateral (
    select participant.user_id from app.participants as participant
    where participant.left_at is null and participant.user_id > person.user_id
    order by participant.user_id limit 1) as next
  where person.nth < $2::int
)
select array_agg(user_id order by nth) from person
