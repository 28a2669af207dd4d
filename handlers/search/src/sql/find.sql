-- Which messages: $1 who asks · $2 conversation, or null for all of theirs · $3 words · $4 how many of the newest are ranked
-- · $5 how many are kept. Null for who is not in it.
select app.search_ids($1, $2::uuid, $3, $4::int, $5::int)
