-- Whom a canary answers beside its share of the users: named users, a role or a group, testers
-- (host/releases/src/selection.rs).
-- A node of the version before ignores the column: there such a canary answers only its share.

alter table switchboard.running
    add column canary_selection jsonb,
    -- A canary may have only selected users.
    drop constraint if exists running_canary_percent_check,
    add constraint running_canary_percent_check check (canary_percent between 0 and 99);

alter table switchboard.history add column selection jsonb;
comment on column switchboard.history.selection is 'Of a canary: whom it was to answer beside its share.';
