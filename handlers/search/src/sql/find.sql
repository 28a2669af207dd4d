-- The whole search: $1 who asks · $2 conversation, or null for all of theirs · $3 words · $4 how many of the newest are ranked
-- · $5 how many ids are kept · $6 how many results are shown. The ids are null for a user who is not in the conversation.
select array_to_string(found.ids, ' ') as ids, found.results
from app.search_page($1, $2::uuid, $3, $4::int, $5::int, $6::int) as found
