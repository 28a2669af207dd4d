-- Messages, monthly by their UUIDv7. Two numbers order them, both without gaps per conversation: `seq` the messages,
-- `change` their edits and deletions.
--
-- A number is given as max + 1 under the conversation's lock (`switchboard.lock`); without it two writers give the same.
-- A message's id is never older than that of the message before it in its conversation (the writer sees to it), so the
-- newest partition in which a conversation has anything also has its head: one probe, whatever the age of the history.

-- A conversation as a word of its messages, so that the index of words finds those of a conversation too. It begins with a
-- space, as no word of a text does. Two conversations may share one.
create function app.place_word(conversation uuid) returns text
  language sql immutable strict parallel safe
  return ' ' || right(conversation::text, 12);

create table app.messages (
  id uuid primary key,
  conversation_id uuid not null,
  seq bigint not null,
  -- Of `join`, `leave` and `system` messages: who did it.
  sender_id text not null,
  type text not null,
  -- NFC, 1 to 2000 characters; the handler has checked. What was deleted is empty here, attachments and the rest too:
  -- auditors find it in `message_changes`, and no other query can show it by mistake.
  content text not null,
  reply_to_id uuid,
  -- [{url, name, mime, size}], at most 10.
  attachments json,
  metadata json,
  -- User ids named by the sender; `@username` is resolved by who notifies.
  mentions json,
  -- The sender's key, so that a client recognises its own message when it comes back as a push.
  client_msg_id text,
  created_at timestamptz not null,
  edited_at timestamptz,
  deleted_at timestamptz,
  -- Its latest edit or deletion; null for most.
  change bigint,
  search tsvector generated always as (
    to_tsvector('app.search', content) || array_to_tsvector(array[app.place_word(conversation_id)])) stored,
  constraint messages_type_known check (type in ('text', 'system', 'join', 'leave'))
) partition by range (id);

-- Heads and pages. Uniqueness rests on the lock: a unique index would need the partition key.
create index messages_by_seq on app.messages (conversation_id, seq desc);
-- Joins, leaves and what the system says: few among many texts.
create index messages_beside_texts on app.messages (conversation_id, seq desc) where type <> 'text';
create index messages_by_words on app.messages using gin (search);
create table app.messages_default partition of app.messages default;

-- Every edit and deletion, with what stood there before.
create table app.message_changes (
  -- UUIDv7 of the change.
  id uuid primary key,
  conversation_id uuid not null,
  change bigint not null,
  message_id uuid not null,
  seq bigint not null,
  kind text not null,
  by_user text not null,
  at timestamptz not null,
  -- For auditors: what this change replaced.
  original_content text not null,
  original_attachments json,
  original_metadata json,
  original_mentions json,
  constraint message_changes_kind_known check (kind in ('edit', 'delete'))
) partition by range (id);

create index message_changes_by_change on app.message_changes (conversation_id, change desc);
-- What became of a message.
create index message_changes_of_message on app.message_changes (message_id, change);
create table app.message_changes_default partition of app.message_changes default;

-- What makes a retry find the first result. Not partitioned, because a partitioned table refuses this key; cleaned in
-- batches after a week at the earliest.
create table app.message_keys (
  user_id text not null,
  client_msg_id text not null,
  -- Of everything that was said with the key: the same key for something else is a conflict.
  fingerprint bigint not null,
  message_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (user_id, client_msg_id)
);

create index message_keys_by_age on app.message_keys using brin (created_at);

-- The last message of a conversation: no row's worth of nulls where there is none. The partitions from `since` on are
-- looked at first; that is right whatever `since` is, because ids never fall behind within a conversation.
create function app.head(conversation uuid, since uuid) returns table (seq bigint, id uuid)
  language sql stable parallel safe
  as $$
    select coalesce(recent.seq, older.seq, 0), coalesce(recent.id, older.id)
    from (select) as one
    left join lateral (
      select message.seq, message.id from app.messages as message
      where message.conversation_id = conversation and message.id >= since
      order by message.seq desc limit 1) as recent on true
    left join lateral (
      select message.seq, message.id from app.messages as message
      where recent.seq is null and message.conversation_id = conversation
      order by message.seq desc limit 1) as older on true
  $$;

-- The id of the message after `head`: as it is, or, where the clock that made it lags behind the one before, with that
-- one's time. Its randomness stays.
create function app.id_after(head uuid, id uuid) returns uuid
  language sql immutable parallel safe
  return case when head > id then (left(head::text, 13) || substr(id::text, 14))::uuid else id end;

-- A message as everyone sees it, in every answer and push: compact JSON, as text. Deleted: the seq stays, the rest is
-- empty. The sender's profile is given by who asks (`app.profile_json`), `null` for who never connected.
create function app.message_text(
  id uuid, conversation_id uuid, seq bigint, sender_id text, sender text, type text, content text, reply_to_id uuid,
  attachments json, metadata json, mentions json, client_msg_id text, created_at timestamptz, edited_at timestamptz,
  deleted boolean, change bigint) returns text
  language sql stable parallel safe
  return '{"id":"' || id || '","conversation_id":"' || conversation_id || '","seq":' || seq
    || ',"sender_id":' || to_json(sender_id) || ',"sender":' || coalesce(sender, 'null')
    || ',"type":"' || type || '","content":' || case when deleted then '""' else to_json(content)::text end
    || ',"reply_to_id":' || coalesce('"' || reply_to_id || '"', 'null')
    || ',"attachments":' || case when deleted then '[]' else coalesce(attachments::text, '[]') end
    || ',"metadata":' || case when deleted then 'null' else coalesce(metadata::text, 'null') end
    || ',"mentions":' || case when deleted then '[]' else coalesce(mentions::text, '[]') end
    || ',"client_msg_id":' || coalesce(to_json(client_msg_id)::text, 'null')
    || ',"created_at":"' || app.rfc3339(created_at)
    || '","edited_at":' || coalesce('"' || app.rfc3339(edited_at) || '"', 'null')
    || ',"deleted":' || deleted || ',"change":' || coalesce(change::text, 'null') || '}';

create function app.message_text(m app.messages, sender text) returns text
  language sql stable parallel safe
  return app.message_text(
    (m).id, (m).conversation_id, (m).seq, (m).sender_id, sender, (m).type, (m).content, (m).reply_to_id,
    (m).attachments, (m).metadata, (m).mentions, (m).client_msg_id, (m).created_at, (m).edited_at,
    (m).deleted_at is not null, (m).change);
