-- Signatures over digests of releases. Not a column of `releases`: a file is kept once, and may be signed by several, also
-- before it is uploaded and after. A row here proves nothing; each node verifies what it relies on.

create table switchboard.signatures (
    digest bytea not null check (octet_length(digest) = 32),
    -- The public key that made it, ed25519.
    key bytea not null check (octet_length(key) = 32),
    signature bytea not null check (octet_length(signature) = 64),
    made_by text not null,
    made_at timestamptz not null default now(),
    primary key (digest, key)
);
