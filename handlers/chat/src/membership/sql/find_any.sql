-- The conversations with this slug, whoever is in them; two at most: $1 slug.
select conversation.id from app.conversations as conversation
where conversation.slug = $1 and conversation.deleted_at is null
order by conversation.id
limit 2
