-- Releases: what was ever uploaded, what runs, who changed it, and what each node says about it.
-- Read and written by host/src/releases/repository.rs alone; no handler's role is granted anything here.

create schema if not exists switchboard;

-- A time as every answer writes it: UTC, milliseconds.
create function switchboard.rfc3339(t timestamptz) returns text language sql stable
    as $$ select to_char(t at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- Uploaded files. Never changed: a digest names one content for ever.
create table switchboard.releases (
    digest bytea primary key check (octet_length(digest) = 32),
    name text not null,
    -- As read from the file, so that bindings can be compared without it.
    manifest jsonb not null,
    file bytea not null,
    created_by text not null,
    note text,
    created_at timestamptz not null default now()
);
create index releases_of_a_handler on switchboard.releases (name, created_at desc);
-- Files are read and written whole; compressing megabytes again would only cost time in a deploy.
alter table switchboard.releases alter column file set storage external;

-- One row, the counter of switches. Whoever switches locks it first, so switches happen one after another and a node
-- that has seen generation n has seen every one before it.
create table switchboard.fleet (
    only_row boolean primary key default true check (only_row),
    generation bigint not null default 0
);
insert into switchboard.fleet default values;

-- What every node is to run.
create table switchboard.running (
    name text primary key,
    digest bytea not null references switchboard.releases,
    -- Of the switch that last changed this row: a compare-and-swap goes by it.
    generation bigint not null,
    -- A release that answers so many of a hundred users.
    canary bytea references switchboard.releases,
    canary_percent smallint check (canary_percent between 1 and 99),
    -- A release that is shown so many of a hundred calls and answers nobody.
    shadow bytea references switchboard.releases,
    shadow_percent smallint check (shadow_percent between 1 and 100),
    since timestamptz not null default now(),
    check ((canary is null) = (canary_percent is null)),
    check ((shadow is null) = (shadow_percent is null))
);

-- Every switch there was. Append only.
create table switchboard.history (
    generation bigint primary key,
    at timestamptz not null default now(),
    -- Of the running release: deploy, promote, rollback. Beside it: canary and withdraw, shadow and unshadow.
    action text not null check (action in ('deploy', 'canary', 'promote', 'withdraw', 'shadow', 'unshadow', 'rollback')),
    name text not null,
    -- What runs, or stands beside it, from here on.
    digest bytea not null references switchboard.releases,
    -- What it came instead of, or stands beside; null at a handler's first release.
    previous bytea references switchboard.releases,
    percent smallint,
    who text not null,
    note text,
    -- Why a canary was taken back by itself: cause, figures, the node that saw it.
    report jsonb,
    -- The first call of it that went wrong, as `switchboard replay` reads it. Secrets are blanked, message text is not.
    trace text
);
create index history_of_a_handler on switchboard.history (name, generation desc);

-- One row for each run of a node's process. Live is who was heard of in the last seconds.
create table switchboard.nodes (
    id uuid primary key,
    -- Where its admin listener is.
    address text not null,
    version text not null,
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    connections bigint not null default 0
);

-- What a node says about a handler, written when it changes.
create table switchboard.node_handlers (
    node uuid not null references switchboard.nodes on delete cascade,
    name text not null,
    -- The switch that this answers: at or beyond it, the node has done what it could.
    generation bigint not null,
    -- What it runs in truth; null when it never could run any.
    digest bytea,
    -- Why that is not what `running` says; null when it is.
    error text,
    at timestamptz not null default now(),
    primary key (node, name)
);

-- What a shadow of a handler saw on one node: how many calls of the running release it was shown, and how it differed.
create table switchboard.shadow_reports (
    name text not null,
    digest bytea not null references switchboard.releases,
    node uuid not null,
    -- The same calls in the same order, and the same answer.
    same bigint not null default 0,
    -- Another answer, or another host call: such a run ends there.
    differing bigint not null default 0,
    -- Not shown: the worker was busy, or the call was too large to record.
    dropped bigint not null default 0,
    -- The first of them, as sentences.
    examples jsonb not null default '[]',
    at timestamptz not null default now(),
    primary key (name, digest, node)
);
