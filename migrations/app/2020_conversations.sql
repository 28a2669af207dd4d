-- Where messages are, and who is there. Nothing here changes when a message is sent: a row that every message updated
-- would rot while any transaction is held open, so heads, counts and last activity are read from the messages.

create table app.conversations (
  id uuid primary key,
  kind text not null,
  -- A name for paths: lower-case letters, digits, dashes.
  slug text,
  -- Groups and channels have one; a direct conversation is named after its people.
  name text,
  -- As people look for it. Kept, because a search compares many.
  plain_name text generated always as (app.plain(name)) stored,
  description text,
  settings jsonb not null default '{}',
  -- `public` channels are found by name and joined by anyone signed in; everything else is `private`.
  visibility text not null default 'private',
  -- Participants, the owner included; null is no bound.
  capacity integer,
  -- The two people of a direct conversation, in order: exactly one conversation per pair.
  direct_low text,
  direct_high text,
  created_by text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- Readable, nothing changes.
  archived_at timestamptz,
  deleted_at timestamptz,
  constraint conversations_kind_known check (kind in ('direct', 'group', 'class', 'channel')),
  constraint conversations_visibility_known check (visibility in ('public', 'private')),
  constraint conversations_capacity_positive check (capacity > 0),
  constraint conversations_direct_pair_complete
    check ((kind = 'direct') = (direct_low is not null and direct_high is not null) and direct_low < direct_high)
);

-- Free again once the conversation has ended.
create unique index conversations_slug_unique on app.conversations (slug) where slug is not null and deleted_at is null;
create unique index conversations_direct_unique on app.conversations (direct_low, direct_high)
  where direct_low is not null;
-- Public channels in the order of their names, by how these begin, and by any three characters in them.
create index conversations_public on app.conversations (plain_name, id)
  where kind = 'channel' and visibility = 'public' and deleted_at is null;
create index conversations_public_begin on app.conversations (plain_name text_pattern_ops)
  where kind = 'channel' and visibility = 'public' and deleted_at is null;
create index conversations_public_hold on app.conversations using gin (plain_name public.gin_trgm_ops)
  where kind = 'channel' and visibility = 'public' and deleted_at is null;

-- One row per person and conversation, for good: leaving sets `left_at`, coming back clears it. So the key is plain, and
-- people can come back.
create table app.participants (
  conversation_id uuid not null references app.conversations,
  user_id text not null,
  role text not null,
  -- `all`, `mentions` or `none`.
  notifications text not null default 'all',
  joined_at timestamptz not null default now(),
  left_at timestamptz,
  -- Read through here. It only rises, and starts at the head on joining or coming back. What the person wrote after it
  -- counts as read up to there; that is derived, so that sending writes nothing here.
  last_read_seq bigint not null default 0,
  -- Delivered to one of the person's devices through here.
  delivered_seq bigint not null default 0,
  -- A direct conversation that its person left is hidden until a message beyond this.
  hidden_seq bigint,
  primary key (conversation_id, user_id),
  constraint participants_role_known check (role in ('owner', 'admin', 'member', 'observer')),
  constraint participants_notifications_known check (notifications in ('all', 'mentions', 'none'))
) with (fillfactor = 80);

-- A person's conversations.
create index participants_of_user on app.participants (user_id, conversation_id) where left_at is null;
-- Who is there, in the order they came: shown, counted.
create index participants_present on app.participants (conversation_id, joined_at, user_id) where left_at is null;
-- One owner at a time.
create unique index participants_one_owner on app.participants (conversation_id)
  where role = 'owner' and left_at is null;

-- Exactly when what was delivered to and read by whom, for disputes. Only ever appended to, one row for each rise of a
-- mark (`app.mark`).
create table app.marks (
  conversation_id uuid not null,
  user_id text not null,
  kind text not null,
  -- Where the mark stood before: the row tells of the messages after it, through `up_to_seq`. What was passed over, by
  -- leaving and coming back, is in no row.
  from_seq bigint not null,
  up_to_seq bigint not null,
  at timestamptz not null default now(),
  constraint marks_kind_known check (kind in ('delivered', 'read'))
);

-- Message N was read by the row whose `from_seq` < N <= `up_to_seq`: the first one with `up_to_seq` >= N, or none.
create index marks_by_seq on app.marks (conversation_id, user_id, kind, up_to_seq);

-- A conversation as answers show it, without who is there and what was said: compact JSON, as text.
create function app.conversation_text(c app.conversations) returns text
  language sql stable parallel safe
  return '{"id":"' || (c).id || '","type":"' || (c).kind
    || '","name":' || coalesce(to_json((c).name)::text, 'null')
    || ',"slug":' || coalesce(to_json((c).slug)::text, 'null')
    || ',"description":' || coalesce(to_json((c).description)::text, 'null')
    || ',"visibility":"' || (c).visibility || '","capacity":' || coalesce((c).capacity::text, 'null')
    || ',"settings":' || (c).settings || ',"created_by":' || to_json((c).created_by)
    || ',"created_at":"' || app.rfc3339((c).created_at) || '","updated_at":"' || app.rfc3339((c).updated_at)
    || '","archived":' || ((c).archived_at is not null) || '}';

-- A participant likewise, with the profile of who has one.
create function app.participant_text(p app.participants, profile text) returns text
  language sql stable parallel safe
  return '{"user_id":' || to_json((p).user_id) || ',"role":"' || (p).role
    || '","notifications":"' || (p).notifications || '","joined_at":"' || app.rfc3339((p).joined_at)
    || '","user":' || coalesce(profile, 'null') || '}';
