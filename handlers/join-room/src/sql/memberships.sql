-- Which of these conversations a user may see, and where they stand now: $1 who · $2 ids · $3 where this month's ids begin
-- · $4 the epoch of the client's position in each, empty where it names none.
--
-- How far the client's history and this one are the same is null where they are the same epoch, and nothing where nobody here
-- knows its epoch.
select
  asked.id,
  participant.user_id is not null as seated,
  coalesce(conversation.kind = 'channel' and conversation.visibility = 'public', false) as open,
  head.seq,
  coalesce(last.change, 0) as change,
  present.ordinal as epoch,
  present.epoch::text as epoch_name,
  case
    when asked.epoch = '' or asked.epoch = present.epoch::text then null
    when known.ordinal is null then 0
    else app.common_seq(asked.id, head.seq, known.ordinal)
  end as common_seq,
  case
    when asked.epoch = '' or asked.epoch = present.epoch::text then null
    when known.ordinal is null then 0
    else app.common_change(asked.id, coalesce(last.change, 0), known.ordinal)
  end as common_change
from unnest($2::uuid[], $4::text[]) as asked(id, epoch)
cross join lateral (
  select epochs.ordinal, epochs.epoch from switchboard.epochs as epochs order by epochs.ordinal desc limit 1) as present
left join switchboard.epochs as known on known.epoch::text = asked.epoch
left join app.conversations as conversation on conversation.id = asked.id and conversation.deleted_at is null
left join app.participants as participant
  on participant.conversation_id = conversation.id and participant.user_id = $1 and participant.left_at is null
left join lateral
  app.head(case when participant.user_id is not null then asked.id end, $3::uuid) as head on true
left join lateral (
  select change.change from app.message_changes as change
  where change.conversation_id = asked.id and participant.user_id is not null
  order by change.change desc limit 1) as last on true
