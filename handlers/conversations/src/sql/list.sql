-- Mine, newest activity first: $1 who · $2 the cursor, an id, or null · $3 how many, one more than the page has.
-- Activity is the id of the last message, which is in order of time.
with
mine as (
  select
    conversation.id, conversation.kind, app.conversation_text(conversation) as text, conversation.direct_low,
    conversation.direct_high, participant.role, participant.last_read_seq, participant.notifications, last.seq,
    last.id as last_id, coalesce(last.id, conversation.id) as activity
  from app.participants as participant
  join app.conversations as conversation
    on conversation.id = participant.conversation_id and conversation.deleted_at is null
  left join lateral (
    select message.id, message.seq from app.messages as message
    where message.conversation_id = conversation.id
    order by message.seq desc limit 1) as last on true
  where participant.user_id = $1 and participant.left_at is null
    and (participant.hidden_seq is null or last.seq > participant.hidden_seq)
),
page as (
  select * from mine
  where activity < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  order by activity desc
  limit $3::int
)
select
  page.activity,
  rtrim(page.text, '}')
    || ',"my_role":"' || page.role || '","notifications":"' || page.notifications
    || '","last_read_seq":' || greatest(page.last_read_seq, coalesce(after.own, 0))
    || ',"unread":' || after.unread
    || ',"last_message":' || coalesce((
      select '{"id":"' || message.id || '","seq":' || message.seq || ',"sender_id":' || to_json(message.sender_id)
        || ',"type":"' || message.type || '","content":'
        || to_json(case when message.deleted_at is null then left(message.content, 100) else '' end)
        || ',"created_at":"' || app.rfc3339(message.created_at) || '"}'
      from app.messages as message where message.id = page.last_id), 'null')
    || ',"peer":' || coalesce((
      select '{"user_id":' || to_json(other) || ',"user":' || coalesce(app.profile_text(person), 'null') || '}'
      from (select case when page.direct_low = $1 then page.direct_high else page.direct_low end as other) as pair
      left join app.users as person on person.id = pair.other
      where page.kind = 'direct'), 'null')
    || '}' as conversation
from page
-- What I wrote after my mark counts as read up to there. One walk along the index finds that and what others wrote since.
left join lateral (
  select
    max(own) as own,
    count(*) filter (where seq > coalesce(own, 0) and type = 'text' and sender_id <> $1 and deleted_at is null) as unread
  from (
    select message.*, max(message.seq) filter (where message.sender_id = $1) over () as own
    from (
      select message.seq, message.sender_id, message.type, message.deleted_at from app.messages as message
      where message.conversation_id = page.id and message.seq > page.last_read_seq
      order by message.seq desc
      -- Who is further behind than this is shown this many.
      limit 10000) as message) as message) as after on true
order by page.activity desc
