-- How far each consumer of the outbox is, and what it could not do yet. Written by host/src/postgres/outbox alone.

create table switchboard.cursors (
  consumer    text        not null,
  shard       smallint    not null check (shard between 0 and 7),
  high        bigint      not null default 0,
  holes       jsonb       not null default '[]',
  epoch       bigint      not null default 0,
  owner       uuid,
  lease_until timestamptz not null default '-infinity',
  primary key (consumer, shard)
) with (fillfactor = 50);

comment on column switchboard.cursors.high is 'Every position up to here was seen, except the holes.';
comment on column switchboard.cursors.holes is
  '[[from, to, xmax], …]: positions not seen, and the first transaction id that had not begun when they were missed. '
  'Once every id below it has ended, what is still missing was rolled back.';
comment on column switchboard.cursors.epoch is
  'Rises with every change of owner. A save names the epoch it was claimed with, so a former owner can save nothing.';
comment on column switchboard.cursors.owner is 'The node (a run of a process) that reads this shard for this consumer.';

-- Events that a consumer asked to see again, and those of the same key behind them. Copies, so that partitions can go.
create table switchboard.retries (
  consumer   text        not null,
  shard      smallint    not null,
  position   bigint      not null,
  id         uuid        not null,
  event_type text        not null,
  key        text        not null,
  payload    json        not null,
  created_at timestamptz not null,
  attempts   int         not null,
  due_at     timestamptz not null,
  primary key (consumer, shard, position)
);
create index retries_by_key on switchboard.retries (consumer, shard, key, position);

comment on column switchboard.retries.attempts is 'Deliveries so far; 0 for an event that only waits behind another of its key.';
comment on column switchboard.retries.due_at is 'Counts for the first event of a key; the others follow it.';

-- Events that a consumer gave up. They wait for an operator, who lets them be delivered again or drops them.
create table switchboard.parked (
  consumer   text        not null,
  shard      smallint    not null,
  position   bigint      not null,
  id         uuid        not null,
  event_type text        not null,
  key        text        not null,
  payload    json        not null,
  created_at timestamptz not null,
  attempts   int         not null,
  error      text        not null,
  parked_at  timestamptz not null default now(),
  primary key (consumer, shard, position)
);
create index parked_by_time on switchboard.parked (consumer, parked_at desc);
