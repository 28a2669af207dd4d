-- Which of these watchers may know of whom they watch: $1 watchers · $2 whom each watches.
select distinct pair.watcher, pair.watched
from unnest($1::text[], $2::text[]) as pair(watcher, watched)
where app.sees(pair.watcher, pair.watched)
