-- One page as auditors see it, and the note that it was seen: $1 conversation · $2 before · $3 after · $4 type or null ·
-- $5 limit · $6 bytes · $7 id of the note · $8 who · $9 session · $10 why · $11 the page as JSON ·
-- $12 only changes before this one, or null.
-- Always one row. A deleted message shows what it said when it was deleted; `changes` has what each change replaced.
with
known as (
  select conversation.id from app.conversations as conversation where conversation.id = $1::uuid
),
recorded as (
  insert into app.audits (id, conversation_id, by_user, session_id, reason, page)
  select $7::uuid, known.id, $8::text, $9::text, $10::text, $11::json from known
),
page as (
  -- By itself, so that the limit ends the walk along the index.
  select message.* from app.messages as message
  where message.conversation_id = $1
    and message.seq < coalesce($2::bigint, 9223372036854775807) and message.seq > coalesce($3::bigint, 0)
    and message.type = coalesce($4::text, message.type)
    and exists (select from known)
  order by message.seq {direction}
  limit $5::int + 1
),
found as (
  select
    page.seq,
    app.message_text(
      page.id, page.conversation_id, page.seq, page.sender_id, app.profile_text(sender), page.type,
      coalesce(last.original_content, page.content), page.reply_to_id,
      case when last.message_id is null then page.attachments else last.original_attachments end,
      case when last.message_id is null then page.metadata else last.original_metadata end,
      case when last.message_id is null then page.mentions else last.original_mentions end,
      page.client_msg_id, page.created_at, page.edited_at, false, page.change) as shown,
    ',"deleted":false,"change":' || coalesce(page.change::text, 'null') || '}' as tail,
    ',"deleted":' || (page.deleted_at is not null) || ',"change":' || coalesce(page.change::text, 'null')
      || ',"deleted_at":' || coalesce('"' || app.rfc3339(page.deleted_at) || '"', 'null')
      || ',"changes":[' || coalesce(changes.texts, '') || '],"changes_omitted":' || coalesce(changes.omitted, 0) || '}'
      as full_tail
  from page
  left join app.users as sender on sender.id = page.sender_id
  -- The deletion, where there is one: nothing changes after it.
  left join app.message_changes as last
    on page.deleted_at is not null and last.message_id = page.id and last.kind = 'delete'
  -- The newest, as many as are not too much for one message.
  left join lateral (
    select
      string_agg(text, ',' order by change) filter (where bytes <= 262144) as texts,
      count(*) filter (where bytes > 262144) as omitted
    from (
      select change, text, sum(octet_length(text)) over (order by change desc) as bytes
      from (
        select change.change,
          '{"change":' || change.change || ',"kind":"' || change.kind || '","by":' || to_json(change.by_user)
            || ',"at":"' || app.rfc3339(change.at) || '","original":{"content":' || to_json(change.original_content)
            || ',"attachments":' || coalesce(change.original_attachments::text, '[]')
            || ',"metadata":' || coalesce(change.original_metadata::text, 'null')
            || ',"mentions":' || coalesce(change.original_mentions::text, '[]') || '}}' as text
        from app.message_changes as change
        where page.change is not null and change.message_id = page.id
          and change.change < coalesce($12::bigint, 9223372036854775807)) as written) as summed) as changes on true
),
texts as (
  -- What everyone's text ends with gives way to what only auditors see.
  select seq, left(shown, -char_length(tail)) || full_tail as text from found
),
measured as (
  select *,
    row_number() over (order by seq {direction}) as nth,
    sum(octet_length(text) + 1) over (order by seq {direction}) as bytes
  from texts
),
kept as (
  select * from measured where nth = 1 or (nth <= $5 and bytes <= $6::bigint)
)
select
  exists (select from known) as recorded,
  coalesce((select '[' || string_agg(text, ',' order by seq) || ']' from kept), '[]') as messages,
  (select count(*) from found) > (select count(*) from kept) as has_more
