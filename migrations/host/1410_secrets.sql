-- Secrets of operators for handlers, sealed: the key is derived from the nodes' setting `secret`, which Postgres does not
-- have. Only the host reads them. Read and written by host/releases/src/repository/secrets.rs alone.

create table switchboard.secrets (
    name text primary key check (name ~ '^[A-Z][A-Z0-9_]{0,63}$'),
    -- Rises with each set. A value is sealed for its name and version, so an old value opens in no other row.
    version bigint not null check (version > 0),
    -- Which key sealed it.
    key_id text not null check (key_id ~ '^[0-9a-f]{16}$'),
    -- Nonce (12 bytes), cipher text, tag (16 bytes).
    sealed bytea not null check (octet_length(sealed) > 28),
    -- The fleet's generation since which nodes use this version.
    generation bigint not null,
    set_by text not null,
    set_at timestamptz not null default now()
);

alter table switchboard.fleet add column secrets_key text check (secrets_key ~ '^[0-9a-f]{16}$');
comment on column switchboard.fleet.secrets_key is
  'The id of the key with which nodes seal: that of the `secret` of the last `switchboard migrate`. Null: each node its own.';
