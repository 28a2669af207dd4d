-- Append messages of many callers at once. Their conversations are locked by the statement before, so what this one's
-- snapshot sees of them is complete, and seqs have neither gaps nor doubles.
with
asked as (
  select *
  from unnest(
    $1::int[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::uuid[],
    $10::json[], $11::json[], $12::json[], $13::bigint[])
    as asked(n, key, conversation_id, sender_id, id, client_msg_id, fingerprint, content, reply_to_id,
      attachments, metadata, mentions, at_ms)
),
-- Who may, and why not.
judged as (
  select
    asked.*,
    app.profile_text(sender) as sender,
    case
      when participant.user_id is null or conversation.deleted_at is not null then 'not_found'
      when participant.role = 'observer' then 'forbidden'
      when conversation.archived_at is not null then 'archived'
      when asked.reply_to_id is not null and not exists (
        select from app.messages as original
        where original.id = asked.reply_to_id and original.conversation_id = asked.conversation_id)
        then 'unknown_reply'
      else 'accepted'
    end as verdict
  from asked
  left join app.participants as participant
    on participant.conversation_id = asked.conversation_id
    and participant.user_id = asked.sender_id
    and participant.left_at is null
  left join app.conversations as conversation on conversation.id = asked.conversation_id
  left join app.users as sender on sender.id = asked.sender_id
),
-- The head of each conversation, looked up once, at its first message.
headed as (
  select
    accepted.*,
    first_value(head.seq) over conversation as head_seq,
    app.id_after(first_value(head.id) over conversation, accepted.id) as message_id
  from (
    select *, row_number() over (partition by conversation_id order by id) as nth
    from judged
    where verdict = 'accepted') as accepted
  left join lateral app.head(case when accepted.nth = 1 then accepted.conversation_id end, ($14::uuid[])[1]) as head on true
  window conversation as (partition by accepted.conversation_id order by accepted.nth)
),
-- A key is taken once: by the first of this batch, unless somebody has it already. One that is being taken elsewhere is
-- waited for. In the order of the key, so that two batches never wait for each other.
keys as (
  insert into app.message_keys (user_id, client_msg_id, fingerprint, message_id)
  select distinct on (sender_id, client_msg_id) sender_id, client_msg_id, fingerprint, message_id
  from headed
  where client_msg_id is not null
  order by sender_id, client_msg_id, n
  on conflict do nothing
  returning message_id
),
-- Only what is really new is numbered, so seqs have no gaps.
numbered as (
  select
    headed.*,
    head_seq + row_number() over (partition by conversation_id order by message_id) as seq,
    to_timestamp(at_ms / 1000.0) as created_at
  from headed
  where client_msg_id is null or message_id in (select message_id from keys)
),
written as materialized (
  select
    numbered.*,
    app.message_text(message_id, conversation_id, seq, sender_id, sender, 'text', content, reply_to_id, attachments,
      metadata, mentions, client_msg_id, created_at, null, false, null) as message
  from numbered
),
stored as (
  insert into app.messages (
    id, conversation_id, seq, sender_id, type, content, reply_to_id, attachments, metadata, mentions, client_msg_id,
    created_at)
  select
    message_id, conversation_id, seq, sender_id, 'text', content, reply_to_id, attachments, metadata, mentions,
    client_msg_id, created_at
  from written
),
announced as (
  insert into switchboard.outbox (shard, position, id, event_type, key, payload)
  select
    shard, switchboard.next_position(shard), message_id, 'message.created', key,
    ('{"conversation_id":"' || conversation_id || '","seq":' || seq || ',"message":' || message || '}')::json
  from (
    select *, switchboard.shard(key) as shard
    from written
    order by conversation_id, seq) as ordered
)
select
  judged.n,
  case when judged.verdict = 'accepted' and written.n is null then 'duplicate' else judged.verdict end as verdict,
  switchboard.shard(judged.key)::int as shard,
  written.message
from judged
left join written using (n)
