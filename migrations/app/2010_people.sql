-- The directory: who has ever connected. Others may already be participants somewhere: any valid id may be.

create table app.users (
  -- The token's `sub`, verbatim.
  id text primary key,
  -- What others see; from the token until the person chooses.
  display_name text,
  username text,
  avatar_url text,
  -- Visible to oneself only.
  email text,
  -- The person edited the entry: a token's name no longer overwrites it.
  edited boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint users_id_valid check (char_length(id) between 1 and 64)
);

-- Unique without case: `Ana` and `ana` are one name.
create unique index users_username_unique on app.users (lower(username)) where username is not null;
create unique index users_email_unique on app.users (lower(email)) where email is not null;

-- A person as messages and lists show them: compact JSON, as text; null for who never connected.
create function app.profile_text(person app.users) returns text
  language sql stable parallel safe
  return '{"user_id":' || to_json((person).id) || ',"name":' || coalesce(to_json((person).display_name)::text, 'null')
    || ',"username":' || coalesce(to_json((person).username)::text, 'null')
    || ',"avatar_url":' || coalesce(to_json((person).avatar_url)::text, 'null') || '}';
