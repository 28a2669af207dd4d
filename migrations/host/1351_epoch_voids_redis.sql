-- A new position epoch makes void what Redis holds: it may know of messages that the new history does not have. The step is
-- large, because the lost history may have raised the generation too, and the new generation must be above every one that
-- Redis has seen.
create function switchboard.void_redis() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update switchboard.fleet_identity set redis_generation = redis_generation + 1000;
  return null;
end $$;
revoke all on function switchboard.void_redis() from public;

create trigger void_redis after insert on switchboard.epochs
  for each statement execute function switchboard.void_redis();
