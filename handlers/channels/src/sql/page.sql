-- Public channels by name: $1 who asks · $2 the pattern · $3 the last one of the page before · $4 how many, one more than
-- the page has
select
  page.id,
  rtrim(page.text, '}') || ',"my_role":' || coalesce('"' || mine.role || '"', 'null') || '}' as conversation
from (
  select channel.id, channel.plain_name, app.conversation_text(channel) as text
  from app.conversations as channel
  where channel.kind = 'channel' and channel.visibility = 'public' and channel.deleted_at is null
    and {matches} and {after}
  order by channel.plain_name, channel.id
  limit $4::int) as page
left join app.participants as mine
  on mine.conversation_id = page.id and mine.user_id = $1 and mine.left_at is null
order by page.plain_name, page.id
