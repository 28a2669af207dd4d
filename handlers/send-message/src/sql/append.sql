-- Append messages of many callers at once. Their conversations are locked by the statement before, so what this one's
-- snapshot sees of them is complete, and seqs have neither gaps nor doubles.
--
-- Each look into a table is a lateral `limit 1`, whose plan does not turn with the table's statistics. `{recent}` bounds
-- the ids among which heads are looked for, so that old months cost nothing; `{everywhere}` says that nothing
-- was left out. `body` is what the writer of a message knows of its JSON.
with
asked as materialized (
  select *, switchboard.shard(key) as shard
  from unnest(
    $1::int[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::uuid[],
    $10::json[], $11::json[], $12::json[], $13::bigint[], $14::text[])
    as asked(n, key, conversation_id, sender_id, id, client_msg_id, fingerprint, content, reply_to_id,
      attachments, metadata, mentions, at_ms, body)
),
-- Which history this is: once for all of them.
present as materialized (
  select switchboard.current_epoch() as epoch
),
-- Who may, and why not. The messages of a conversation have the order of the calls, also if the clocks of the callers
-- differ: the first call gets the smallest id.
judged as materialized (
  select
    asked.*,
    coalesce(person.profile, 'null') as sender,
    head.seq as head_seq,
    participant.engaged,
    another.is_there is null as alone,
    (array_agg(app.id_after(head.id, asked.id)) over ids)[row_number() over calls] as message_id,
    case
      when participant.role is null or conversation.deleted_at is not null then 'not_found'
      when participant.role = 'observer' then 'forbidden'
      when conversation.archived_at is not null then 'archived'
      when abs(at_ms / 1000.0 - extract(epoch from now())) > 86400 then 'wrong_clock'
      when head.seq is null and not {everywhere} then 'cold'
      else 'accepted'
    end as verdict
  from asked
  left join lateral (
    select role, engaged from app.participants as p
    where p.conversation_id = asked.conversation_id and p.user_id = asked.sender_id and p.left_at is null
    limit 1) as participant on true
  -- Mostly the second row of an index: who has come first, or next.
  left join lateral (
    select true as is_there from app.participants as p
    where p.conversation_id = asked.conversation_id and p.left_at is null and p.user_id <> asked.sender_id
    limit 1) as another on true
  left join lateral (
    select archived_at, deleted_at from app.conversations as c where c.id = asked.conversation_id
    limit 1) as conversation on true
  left join lateral (
    select profile from app.users as u where u.id = asked.sender_id
    limit 1) as person on true
  left join lateral (
    select m.seq, m.id from app.messages as m
    where m.conversation_id = asked.conversation_id and {recent}
    order by m.seq desc
    limit 1) as head on true
  window
    ids as (
      partition by asked.conversation_id order by app.id_after(head.id, asked.id)
      rows between unbounded preceding and unbounded following),
    calls as (partition by asked.conversation_id order by asked.n)
),
-- A key is taken once: by the first of this batch, unless somebody has it already. One that is being taken elsewhere is
-- waited for. In the order of the key, so that two batches never wait for each other.
keys as (
  insert into app.message_keys (user_id, client_msg_id, fingerprint, message_id)
  select distinct on (sender_id, client_msg_id) sender_id, client_msg_id, fingerprint, message_id
  from judged
  where verdict = 'accepted' and client_msg_id is not null
  order by sender_id, client_msg_id, n
  on conflict do nothing
  returning message_id
),
-- Only what is really new is numbered, so seqs have no gaps.
numbered as (
  select
    judged.*, present.epoch,
    coalesce(head_seq, 0) + row_number() over (partition by conversation_id order by n) as seq
  from judged cross join present
  where verdict = 'accepted' and (client_msg_id is null or message_id in (select message_id from keys))
),
written as materialized (
  select
    numbered.*,
    '{"id":"' || message_id || '","conversation_id":"' || conversation_id || '","seq":' || seq || ',"sender":' || sender
      || ',' || body || '}' as message
  from numbered
),
stored as (
  insert into app.messages (
    id, conversation_id, seq, sender_id, type, content, reply_to_id, attachments, metadata, mentions, client_msg_id,
    created_at, epoch)
  select
    message_id, conversation_id, seq, sender_id, 'text', content, reply_to_id, attachments, metadata, mentions,
    client_msg_id, to_timestamp(at_ms / 1000.0), epoch
  from written
),
-- Their first text here, so they may be seen by the others and see them. The participant is found by its key and then by its
-- place: with the columns of the key alone, the planner reads the index of all who are not engaged, for every message.
appeared as (
  update app.participants as participant set engaged = true
  from (select distinct conversation_id, sender_id from written where not engaged) as writer
  cross join lateral (
    select p.ctid from app.participants as p
    where p.conversation_id = writer.conversation_id and p.user_id = writer.sender_id and p.left_at is null
    limit 1) as seat
  where participant.ctid = seat.ctid and not participant.engaged
),
-- In the order of seq, as rows of one conversation come out of the window. `alone` has a space after its colon, because pgbench
-- would take `:true` for a variable (`tests/load/sends.rs`).
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select
    shard, switchboard.next_position(shard), message_id, 'message.created', key,
    ('{"conversation_id":"' || conversation_id || '","seq":' || seq
      || case when epoch > 0 then ',"epoch":' || epoch else '' end || case when alone then ',"alone": true' else '' end
      || ',"message":' || message || '}')::json
  from written
)
select
  judged.n,
  case when judged.verdict = 'accepted' and written.n is null then 'duplicate' else judged.verdict end as verdict,
  judged.shard::int as shard,
  written.message
from judged
left join written using (n)
