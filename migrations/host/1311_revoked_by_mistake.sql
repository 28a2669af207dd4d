-- `1000_roles` revoked functions by the pattern 'lo\_%'. Where `standard_conforming_strings` was off, this literal was the
-- pattern 'lo_%', and everybody lost `lower`, `log` and others. They are given back; on other databases nothing changes.
-- The names are compared without a pattern.
do $$
declare
  lost regprocedure;
begin
  for lost in
    select oid::regprocedure from pg_proc
    where pronamespace = 'pg_catalog'::regnamespace
      and left(proname, 2) = 'lo' and left(proname, 3) <> 'lo_' and proname not in ('loread', 'lowrite')
      and not has_function_privilege('public', oid, 'execute')
  loop
    begin
      execute format('grant execute on function %s to public', lost);
    exception when insufficient_privilege then
      raise warning 'public may not execute %, and the owner of this database may not grant it: a superuser has to', lost;
    end;
  end loop;
end $$;

-- Databases that were made before Postgres 15 let everybody create tables in `public`, and `select … into` is a statement
-- that a handler may say.
do $$
begin
  revoke create on schema public from public;
exception when insufficient_privilege then
  if has_schema_privilege('public', 'public', 'create') then
    raise warning 'everybody may create tables in the schema public, and the owner of this database may not change it';
  end if;
end $$;
