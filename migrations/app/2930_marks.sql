-- How far things were delivered and read. A mark is a column of the participant that only rises; each rise is a row of the
-- log and an event. Sending advances the sender's own mark, but writes nothing here: that is derived from the messages.

-- A new UUIDv7 of a moment, for what a statement makes by itself.
create function app.uuid_at(at timestamptz) returns uuid
  language sql volatile parallel safe
  return (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
    || right(replace(gen_random_uuid()::text, '-', ''), 19))::uuid;

-- What a person whose mark is `mark` has read through, their own texts included, and how many texts of others come after
-- it. The walk is bounded by seqs, not by a limit: a plan with one might sort a whole conversation. Who is further behind
-- than 10,000 messages is told of those.
create function app.unread(conversation uuid, reader text, mark bigint)
  returns table (through_seq bigint, unread bigint)
  language sql stable parallel safe
  as $$
    select
      coalesce(max(after.own), mark),
      count(*) filter (
        where after.seq > coalesce(after.own, mark) and after.type = 'text' and after.sender_id <> reader
          and after.deleted_at is null)
    from (
      select
        message.seq, message.type, message.sender_id, message.deleted_at,
        max(message.seq) filter (where message.sender_id = reader and message.type = 'text') over () as own
      from app.head(
        conversation, app.uuid_floor(date_trunc('month', now() at time zone 'UTC') at time zone 'UTC')) as head
      join app.messages as message
        on message.conversation_id = conversation and message.seq > greatest(mark, head.seq - 10000)) as after
  $$;

-- Raises marks, of many callers at once: one column of the arrays is one call. `positions` is {conversation id: seq};
-- `kinds` says `delivered` or `read`, and what is read is delivered. A seq beyond the head counts as the head; where
-- somebody is not (any more) nothing happens. Every rise is logged and announced, in this transaction.
-- One row for each call and conversation that the user is in: where the mark stands now, whether this call's transaction
-- raised it, and the shard to wake then.
--
-- For the handlers that grant themselves `execute`; they need nothing else for it.
create function app.mark(calls int[], users text[], kinds text[], positions json[])
  returns table (call int, conversation_id uuid, kind text, up_to_seq bigint, moved boolean, shard int)
  language plpgsql volatile security definer set search_path = app, pg_temp as $$
#variable_conflict use_column
declare
  -- Heads are looked for in this month's messages first.
  since uuid := app.uuid_floor(date_trunc('month', now() at time zone 'UTC') at time zone 'UTC');
  marked_at timestamptz := clock_timestamp();
begin
  -- By themselves and sorted: two callers never wait for each other, and the next statement sees the last one's marks.
  perform
  from app.participants as participant
  join (
    select position.key::uuid as conversation_id, asked.user_id, max(position.value::bigint) as seq
    from unnest(users, positions) as asked(user_id, positions)
    cross join json_each_text(asked.positions) as position
    group by position.key::uuid, asked.user_id) as wanted using (conversation_id, user_id)
  where participant.left_at is null
    and wanted.seq > least(participant.last_read_seq, participant.delivered_seq)
  order by participant.conversation_id, participant.user_id
  for no key update of participant;

  return query
  with
  asked as (
    select asked.call, asked.user_id, asked.kind, position.key::uuid as conversation_id, position.value::bigint as seq
    from unnest(calls, users, kinds, positions) as asked(call, user_id, kind, positions)
    cross join json_each_text(asked.positions) as position
  ),
  wanted as (
    select conversation_id, user_id, max(seq) as delivered, max(seq) filter (where kind = 'read') as read
    from asked
    group by conversation_id, user_id
  ),
  standing as (
    select
      wanted.conversation_id, wanted.user_id, participant.delivered_seq, participant.last_read_seq,
      greatest(participant.delivered_seq, least(wanted.delivered, head.seq)) as delivered_to,
      -- `least` passes over nulls, and who was only delivered to has read nothing.
      case when wanted.read is null then participant.last_read_seq
        else greatest(participant.last_read_seq, least(wanted.read, head.seq)) end as read_to
    from wanted
    join app.participants as participant
      on participant.conversation_id = wanted.conversation_id and participant.user_id = wanted.user_id
      and participant.left_at is null
    join app.conversations as conversation
      on conversation.id = wanted.conversation_id and conversation.deleted_at is null
    cross join lateral app.head(wanted.conversation_id, since) as head
  ),
  risen as (
    select conversation_id, user_id, 'delivered' as kind, delivered_seq as from_seq, delivered_to as up_to_seq
    from standing where delivered_to > delivered_seq
    union all
    select conversation_id, user_id, 'read', last_read_seq, read_to
    from standing where read_to > last_read_seq
  ),
  raised as (
    update app.participants as participant
    set delivered_seq = standing.delivered_to, last_read_seq = standing.read_to
    from standing
    where participant.conversation_id = standing.conversation_id and participant.user_id = standing.user_id
      and (standing.delivered_to > standing.delivered_seq or standing.read_to > standing.last_read_seq)
  ),
  logged as (
    insert into app.marks (conversation_id, user_id, kind, from_seq, up_to_seq, at)
    select conversation_id, user_id, kind, from_seq, up_to_seq, marked_at from risen
  ),
  announced as (
    insert into switchboard.outbox (shard, position, id, event_type, key, payload)
    select ordered.shard, switchboard.next_position(ordered.shard), app.uuid_at(marked_at),
      'receipt.' || ordered.kind, ordered.key,
      json_build_object('conversation_id', ordered.conversation_id, 'user_id', ordered.user_id,
        'up_to_seq', ordered.up_to_seq, 'at', app.rfc3339(marked_at))
    from (
      select risen.*, 'conv:' || risen.conversation_id as key,
        switchboard.shard('conv:' || risen.conversation_id) as shard
      from risen
      order by risen.conversation_id, risen.user_id, risen.kind) as ordered
  )
  select
    asked.call, asked.conversation_id, asked.kind,
    case asked.kind when 'read' then standing.read_to else standing.delivered_to end,
    standing.delivered_to > standing.delivered_seq or standing.read_to > standing.last_read_seq,
    switchboard.shard('conv:' || asked.conversation_id)::int
  from asked
  join standing on standing.conversation_id = asked.conversation_id and standing.user_id = asked.user_id;
end $$;

revoke all on function app.mark(int[], text[], text[], json[]) from public;

-- What `marks` may do.
select switchboard.ensure_role('marks');
grant usage on schema app to switchboard_marks;
grant execute on function app.mark(int[], text[], text[], json[]) to switchboard_marks;
grant select on app.conversations, app.participants, app.messages, app.marks to switchboard_marks;
