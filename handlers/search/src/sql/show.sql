-- What was found, as it is now and as far as it may be seen now: $1 who asks · $2 conversation or null · $3 words · $4 ids ·
-- $5 how many. Always one row: whether they are in that conversation, and the results.
with
asked as materialized (
  select app.search_query(words.terms) as query, words.terms, app.search_exact($3) as exact
  from (select app.search_terms($3) as terms offset 0) as words
),
mine as materialized (
  select participant.conversation_id
  from app.participants as participant
  join app.conversations as conversation
    on conversation.id = participant.conversation_id and conversation.deleted_at is null
  where participant.user_id = $1 and participant.left_at is null
),
ranked as (
  select message.*, app.search_rank(message.search, message.content, asked.query, asked.exact) as rank
  from asked
  cross join unnest($4::uuid[]) as found(id)
  -- By id, one after the other; without the fence the planner may read all that is said where I am, to join it with these.
  cross join lateral (select message.* from app.messages as message where message.id = found.id offset 0) as message
  where message.deleted_at is null and message.search @@ asked.query
    and message.conversation_id in (select conversation_id from mine)
  order by rank desc, message.id desc
  limit $5::int
)
select
  $2::uuid is null or $2 in (select conversation_id from mine) as seated,
  coalesce((
    select '[' || string_agg('{"message":' || app.message_text(
        ranked.id, ranked.conversation_id, ranked.seq, ranked.sender_id, app.profile_text(sender), ranked.type,
        ranked.content, ranked.reply_to_id, ranked.attachments, ranked.metadata, ranked.mentions, ranked.client_msg_id,
        ranked.created_at, ranked.edited_at, false, ranked.change)
      || ',"snippet":' || to_json(app.search_snippet(ranked.content, asked.terms))
      || ',"rank":' || round(ranked.rank::numeric, 6) || '}', ',' order by ranked.rank desc, ranked.id desc) || ']'
    from ranked cross join asked
    left join app.users as sender on sender.id = ranked.sender_id), '[]') as results
