-- Where a conversation stands now: $1 id · $2 where this month's ids begin; and how much of it readers have in common with this
-- history who have messages of the epoch $3 and changes of the epoch $4. Null where that is the present epoch; nothing where
-- nobody here knows it. And whether somebody left after the seq $5.
select
  head.seq,
  coalesce(last.change, 0) as change,
  present.ordinal as epoch,
  present.epoch::text as epoch_name,
  case
    when present.ordinal = $3::int then null
    when not exists (select from switchboard.epochs as known where known.ordinal = $3) then 0
    else app.common_seq($1::uuid, head.seq, $3)
  end as common_seq,
  case
    when present.ordinal = $4::int then null
    when not exists (select from switchboard.epochs as known where known.ordinal = $4) then 0
    else app.common_change($1::uuid, coalesce(last.change, 0), $4)
  end as common_change,
  exists (
    select from app.participants as participant
    where participant.conversation_id = $1 and participant.left_seq > $5::bigint and participant.left_at is not null)
    as some_left
from app.head($1::uuid, $2::uuid) as head
cross join lateral (
  select epochs.ordinal, epochs.epoch from switchboard.epochs as epochs order by epochs.ordinal desc limit 1) as present
left join lateral (
  select change.change from app.message_changes as change
  where change.conversation_id = $1
  order by change.change desc limit 1) as last on true
