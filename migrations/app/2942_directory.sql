-- Somebody in the directory, without what only they see: compact JSON, as text.
create function app.directory_text(person app.users) returns text
  language sql stable parallel safe
  return '{"id":' || to_json((person).id)
    || ',"display_name":' || coalesce(to_json((person).display_name)::text, 'null')
    || ',"username":' || coalesce(to_json((person).username)::text, 'null')
    || ',"avatar_url":' || coalesce(to_json((person).avatar_url)::text, 'null') || '}';

-- What `users` may do.
select switchboard.ensure_role('users');
grant usage on schema app to switchboard_users;
grant select, insert, update on app.users to switchboard_users;
