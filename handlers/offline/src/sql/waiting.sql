-- Where something was said while people were away: $1 number of the call · $2 who · $3 when their last connection went, in
-- milliseconds, null where only Postgres knows · $4 where this month's ids begin.
-- One row a call: the first id of their absence, and as JSON where it begins in each conversation and where it ends.
-- Looked for once a person: all devices of one may come back at the same moment.
with
asked as materialized (
  select * from unnest($1::int[], $2::text[], $3::bigint[], $4::uuid[]) as asked(n, user_id, gone_ms, month)
),
absence as materialized (
  select
    asked.user_id, asked.gone_ms, away.since,
    coalesce((
      select json_agg(json_build_object('conversation_id', waiting.conversation_id, 'after', waiting.after, 'head', waiting.head))
      from (
        select
          seat.conversation_id, head.seq as head,
          app.seq_before(seat.conversation_id, greatest(seat.delivered_seq, seat.last_read_seq), head.seq, away.since) as after
        from (
          select * from app.participants as participant
          where participant.user_id = asked.user_id and participant.left_at is null
          order by participant.conversation_id desc
          limit 500) as seat
        join app.conversations as conversation on conversation.id = seat.conversation_id and conversation.deleted_at is null
        cross join lateral app.head(seat.conversation_id, asked.month) as head
        where head.seq > greatest(seat.delivered_seq, seat.last_read_seq) and head.id >= away.since) as waiting), '[]')
      as waiting
  from (select distinct on (user_id, gone_ms) user_id, gone_ms, month from asked) as asked
  left join app.presence as known on known.user_id = asked.user_id
  cross join lateral (
    select app.uuid_floor(coalesce(to_timestamp(asked.gone_ms / 1000.0), known.last_seen, 'epoch')) as since) as away
)
select asked.n, absence.since, absence.waiting
from asked
join absence on absence.user_id = asked.user_id and absence.gone_ms is not distinct from asked.gone_ms
