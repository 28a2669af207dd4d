-- Which of these watchers may know of whom they watch: $1 watchers · $2 whom each watches.
select distinct pair.watcher, pair.watched
from unnest($1::text[], $2::text[]) as pair(watcher, watched)
where pair.watcher = pair.watched or exists (
  select from app.participants as mine
  join app.participants as other using (conversation_id)
  join app.conversations as conversation on conversation.id = conversation_id and conversation.deleted_at is null
  where mine.user_id = pair.watcher and mine.left_at is null
    and other.user_id = pair.watched and other.left_at is null)
