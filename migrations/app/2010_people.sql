-- The directory: who has ever connected. Others may already be participants somewhere: any valid id may be.

-- Text as JSON writes it. What it calls is only `stable` because of the types whose output depends on settings.
create function app.json_text(value text) returns text
  language sql immutable parallel safe
  as $$ select to_json(value)::text $$;

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
  -- The person as messages and lists show them: compact JSON. Kept, because every message sent reads it.
  profile text generated always as (
    '{"user_id":' || app.json_text(id) || ',"name":' || coalesce(app.json_text(display_name), 'null')
    || ',"username":' || coalesce(app.json_text(username), 'null')
    || ',"avatar_url":' || coalesce(app.json_text(avatar_url), 'null') || '}') stored,
  constraint users_id_valid check (char_length(id) between 1 and 64)
);

-- Unique without case: `Ana` and `ana` are one name.
create unique index users_username_unique on app.users (lower(username)) where username is not null;
create unique index users_email_unique on app.users (lower(email)) where email is not null;

-- Null for who never connected.
create function app.profile_text(person app.users) returns text
  language sql stable parallel safe
  return (person).profile;
