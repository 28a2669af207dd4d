-- One-shot timers of handlers. A handler sets them by key, and when one is due, one node calls the handler. Read and
-- written by host/postgres/src/timers.rs alone; no handler's role is granted anything here.

-- Numbers each set and each claim of a timer, so that the outcome of a call concerns only the claim that it belongs to.
create sequence switchboard.timer_versions;

create table switchboard.timers (
    handler text not null,
    key text collate "C" not null,
    -- For operators: the id in the list of failed events.
    id uuid not null default gen_random_uuid(),
    payload text not null,
    -- What the handler asked for. It stays the same at every attempt.
    due_at timestamptz not null,
    -- When the timer fires next: at first `due_at`, then the time of the retry. While a node has claimed it, the end of
    -- the lease: if the node dies, the timer is due again then.
    next_at timestamptz not null,
    -- From `timer_versions`, new with each set and each claim.
    version bigint not null default nextval('switchboard.timer_versions'),
    -- Claims so far.
    attempts int not null default 0,
    -- The node that has claimed it.
    owner uuid,
    -- Why the last attempt failed.
    error text,
    -- The handler gave it up. It waits for an operator, who retries or drops it, or for the handler to set it again.
    parked_at timestamptz,
    set_at timestamptz not null default now(),
    primary key (handler, key)
) with (fillfactor = 70);

create index timers_by_time on switchboard.timers (handler, next_at) where parked_at is null;
create index timers_parked on switchboard.timers (parked_at desc) where parked_at is not null;
create index timers_by_id on switchboard.timers (id);
