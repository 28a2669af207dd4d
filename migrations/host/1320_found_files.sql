-- Which files of `handlers_dir` the fleet has seen, and since when. A file is deployed until it has run once, or until an
-- operator has switched its handler after the file was found. That a file is kept in `releases` says neither.
-- Read and written by host/src/releases/repository alone.

create table switchboard.found_files (
    -- Of the file. It need not be in `releases`: a file that does not load is not kept.
    digest bytea primary key check (octet_length(digest) = 32),
    name text not null,
    -- The fleet's generation when a node first found the file.
    generation bigint not null,
    found_at timestamptz not null default now()
);
comment on table switchboard.found_files is
  'A switch of the handler by an operator with a higher generation wins over the file.';

-- Files that nodes have kept before this table existed. One whose switch failed never ran, and is deployed now.
insert into switchboard.found_files (digest, name, generation, found_at)
select r.digest, r.name, coalesce((select max(h.generation) from switchboard.history h where h.at <= r.created_at), 0),
       r.created_at
from switchboard.releases r
where r.created_by = 'serve';
