-- Which of these watchers may know of whom they watch: $1 watchers · $2 whom each watches. As `app.sees` has it, which is not
-- called here: Postgres does not inline it, and there may be thousands of pairs.
select distinct pair.watcher, pair.watched
from unnest($1::text[], $2::text[]) as pair(watcher, watched)
where pair.watcher = pair.watched or exists (
  select from app.participants as mine
  join app.participants as theirs
    on theirs.conversation_id = mine.conversation_id and theirs.user_id = pair.watched and theirs.left_at is null
    and theirs.engaged
  join app.conversations as conversation on conversation.id = mine.conversation_id and conversation.deleted_at is null
  where mine.user_id = pair.watcher and mine.left_at is null and mine.engaged)
