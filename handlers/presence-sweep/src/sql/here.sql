-- Who was last told to be here: $1 how many at most.
select user_id, (extract(epoch from last_seen) * 1000)::bigint as last_seen_ms
from app.presence
where status <> 'offline'
order by user_id
limit $1::int
