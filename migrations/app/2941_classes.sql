-- Courses: who teaches, who learns, and the conversation that comes with each. Whatever changes a class or its members
-- holds the lock of its conversation, so class and conversation never differ.

create table app.classes (
  id uuid primary key,
  conversation_id uuid not null unique references app.conversations,
  name text not null,
  -- What people join by, for instance `CS101-2025`.
  code text not null,
  description text,
  created_by text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- Readable, nothing changes. The conversation's is the same.
  archived_at timestamptz,
  deleted_at timestamptz,
  constraint classes_code_length check (char_length(code) between 1 and 50)
);

-- Free again after deletion.
create unique index classes_code_unique on app.classes (code) where deleted_at is null;

-- One row per person and class, for good: leaving sets `left_at`, coming back clears it.
create table app.class_members (
  class_id uuid not null references app.classes,
  user_id text not null,
  role text not null,
  joined_at timestamptz not null default now(),
  left_at timestamptz,
  primary key (class_id, user_id),
  constraint class_members_role_known check (role in ('teacher', 'ta', 'student', 'observer'))
);

-- A person's classes, the newest first.
create index class_members_of_user on app.class_members (user_id, class_id desc) where left_at is null;
-- The oldest teacher, and whether there is another.
create index class_members_teachers on app.class_members (class_id, joined_at, user_id)
  where left_at is null and role = 'teacher';

-- A class as answers and events show it, but for the role of who asks: compact JSON, as text.
create function app.class_text(c app.classes) returns text
  language sql stable parallel safe
  return '{"id":"' || (c).id || '","name":' || to_json((c).name) || ',"code":' || to_json((c).code)
    || ',"description":' || coalesce(to_json((c).description)::text, 'null')
    || ',"archived":' || ((c).archived_at is not null) || ',"conversation_id":"' || (c).conversation_id
    || '","created_by":' || to_json((c).created_by) || ',"created_at":"' || app.rfc3339((c).created_at)
    || '","updated_at":"' || app.rfc3339((c).updated_at) || '"}';

create function app.class_member_text(m app.class_members, profile text) returns text
  language sql stable parallel safe
  return '{"user_id":' || to_json((m).user_id) || ',"role":"' || (m).role
    || '","joined_at":"' || app.rfc3339((m).joined_at) || '","user":' || coalesce(profile, 'null') || '}';

-- What `classes` may do.
select switchboard.ensure_role('classes');
grant usage on schema app to switchboard_classes;
grant select on app.classes, app.class_members, app.conversations, app.participants, app.users, app.messages
  to switchboard_classes;
grant insert on app.classes, app.class_members, app.conversations, app.participants, app.messages, switchboard.outbox
  to switchboard_classes;
grant update on app.classes, app.class_members, app.participants to switchboard_classes;
grant update (name, archived_at, deleted_at, updated_at) on app.conversations to switchboard_classes;
