-- Tokens that are no longer good although they have not expired: one by its `jti`, or all of a user that were issued
-- before a time. Every node reads them in the order of `position` and keeps them in memory.

create sequence switchboard.revocation_positions;

create table switchboard.revocations (
    -- Given anew whenever the row changes. Whoever writes locks the table first, so a reader that has seen n has seen all
    -- below it.
    position bigint primary key default nextval('switchboard.revocation_positions'),
    jti text unique,
    user_id text unique,
    issued_before timestamptz,
    -- When every token it can mean has expired; then it is deleted.
    forget_at timestamptz not null,
    made_by text not null,
    made_at timestamptz not null default now(),
    check ((jti is null) <> (user_id is null)),
    check ((user_id is null) = (issued_before is null))
);
create index revocations_to_forget on switchboard.revocations (forget_at);
