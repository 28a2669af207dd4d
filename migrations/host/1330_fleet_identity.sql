-- The identity of this fleet, and the generation of what it keeps in Redis. Both are part of every key, the identity also
-- of every channel: fleets that share a Redis neither see nor hear each other.

create table switchboard.fleet_identity (
    one_row boolean primary key default true check (one_row),
    id uuid not null default gen_random_uuid(),
    -- The database that the id was made for. A copy of the database finds another value here and makes an id of its own.
    made_for text,
    -- Keys of an earlier generation are never read again. It is raised whenever Redis may hold what is not true any more.
    redis_generation bigint not null default 1
);
insert into switchboard.fleet_identity default values;

-- Which database this is: it differs for a dump that was restored and for a copy, and stays the same on a standby that was
-- promoted. Where the server hides its own identifier, the number of the database has to do.
create function switchboard.database_identity() returns text
language plpgsql stable as $$
declare
    database text := (select oid from pg_database where datname = current_database());
begin
    return (select system_identifier from pg_control_system()) || '/' || database;
exception when insufficient_privilege then
    return database;
end
$$;
revoke all on function switchboard.database_identity() from public;

-- What every key of this fleet in Redis begins with, for operators who look for one.
create function switchboard.redis_prefix() returns text
language sql stable as $$
    select 'sb:' || left(replace(id::text, '-', ''), 12) || ':' || redis_generation || ':' from switchboard.fleet_identity
$$;
revoke all on function switchboard.redis_prefix() from public;
