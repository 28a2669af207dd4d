-- Who may ask the admin listener for what, and what they did. The first admin's token is a setting and not here.

create table switchboard.operators (
    name text primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    role text not null check (role in ('read', 'deploy', 'admin')),
    -- SHA-256 of the token, which nobody can be told again.
    token_digest bytea not null unique check (octet_length(token_digest) = 32),
    made_by text not null,
    made_at timestamptz not null default now()
);

-- Everything that operators wanted changed, also what was refused. Written before it is done; the outcome follows.
create table switchboard.audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    who text not null,
    role text not null,
    action text not null,
    -- On what or whom, where the action does not say it. Never a token.
    detail text,
    -- As in the log of the node, and in the answer.
    request_id text not null,
    -- Of the HTTP answer; null while it is being done, and for ever where the node died over it.
    status integer,
    outcome text
);
create index audit_by_age on switchboard.audit (at);
