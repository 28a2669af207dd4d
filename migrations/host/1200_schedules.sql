-- Schedules of scope `fleet`: whoever moves `due_at` runs it, so that one node at a time does.

create table switchboard.schedules (
    handler       text        not null,
    name          text        not null,
    due_at        timestamptz not null,
    -- A run in progress, at most until then; null between runs.
    running_until timestamptz,
    primary key (handler, name)
);

comment on table switchboard.schedules is 'When each schedule of scope fleet is due next, on the clock of this database.';
