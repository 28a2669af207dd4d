-- Who logs in, and what nobody but the owner may do.
--
-- The owner of this database migrates and keeps the host's tables. Each handler logs in as a role of its own, named in
-- its manifest (`grants.postgres`), which can do what a migration granted it and nothing else.

create schema switchboard;
comment on schema switchboard is 'What the host keeps for the handlers: outbox, cursors, locks. Usable by all, readable by none.';
grant usage on schema switchboard to public;

create table switchboard.roles (
  name text primary key check (name ~ '^[a-z0-9_]{1,40}$')
);
comment on table switchboard.roles is 'Roles of handlers, without the prefix switchboard_. `switchboard migrate` lets them log in.';

-- Migrations call it before they grant. Roles belong to the whole cluster, so the role may exist already, or be made by a
-- migration of another database at this moment. It gets its password, derived from the secret, after the migrations.
create function switchboard.ensure_role(name text) returns void
  language plpgsql as $$
declare
  role text := 'switchboard_' || name;
begin
  insert into switchboard.roles values (ensure_role.name) on conflict do nothing;
  if not exists (select from pg_roles where rolname = role) then
    begin
      execute format('create role %I login nosuperuser nocreatedb nocreaterole noinherit noreplication', role);
    exception when duplicate_object or unique_violation then
      null;
    end;
  end if;
end $$;
revoke all on function switchboard.ensure_role from public;

-- A connection serves one call after the other, so a call must not leave anything in its session; and locks, notices and
-- large objects are not for handlers. Where the owner may not revoke this, the host resets each connection after use.
do $$
declare
  forbidden regprocedure;
begin
  for forbidden in
    select oid::regprocedure from pg_proc
    where pronamespace = 'pg_catalog'::regnamespace
      and (proname in ('set_config', 'pg_notify', 'setseed', 'pg_export_snapshot', 'pg_logical_emit_message',
                       'pg_cancel_backend', 'pg_terminate_backend', 'loread', 'lowrite')
        or proname like 'pg\_%advisory%' or proname like 'lo\_%')
  loop
    begin
      execute format('revoke execute on function %s from public', forbidden);
    exception when insufficient_privilege then
      null;
    end;
  end loop;
  execute format('revoke temporary on database %I from public', current_database());
end $$;
