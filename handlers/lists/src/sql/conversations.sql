-- The next conversations: $1 after which · $2 how many.
select array_agg(id) from (
  select id from app.conversations where id > $1::uuid order by id limit $2::int) as conversation
