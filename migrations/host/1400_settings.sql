-- Live settings of handlers: operators change them while the handlers run. Each change raises the generation of the fleet,
-- as a switch of releases does. Read and written by host/src/releases/repository alone; no handler's role is granted
-- anything here.

-- The values that are set now. A key that is not here has the default of the manifest.
create table switchboard.settings (
    handler text not null,
    key text not null,
    value text not null,
    -- The change that set it.
    generation bigint not null,
    set_by text not null,
    set_at timestamptz not null default now(),
    primary key (handler, key)
);

-- The changes. The oldest of a handler are deleted beyond a bound.
create table switchboard.settings_history (
    generation bigint primary key,
    handler text not null,
    at timestamptz not null default now(),
    who text not null,
    note text,
    -- [{"key": …, "from": …, "to": …}]; null means that the key was not set, or is not set any more.
    changes jsonb not null,
    -- All values of the handler after this change, so that a rollback needs one row.
    after jsonb not null
);
create index settings_history_of_a_handler on switchboard.settings_history (handler, generation desc);

-- The keys of a handler's settings that the file or the environment of this node overrides. A live setting of such a key has
-- no effect on the node.
alter table switchboard.node_handlers add column overrides text[] not null default '{}';
