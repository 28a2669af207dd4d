-- What lets an internal system publish again without publishing twice, and what the handler of it may do.

create table app.publish_keys (
  publisher text not null,
  key text not null,
  -- Of everything that was published with the key: the same key for something else is a conflict.
  fingerprint bigint not null,
  event_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (publisher, key)
);
comment on table app.publish_keys is 'Idempotency-Key of POST /internal/v1/publish, kept for a week at least.';
create index publish_keys_by_age on app.publish_keys (created_at);

select switchboard.ensure_role('publish');
grant usage on schema app to switchboard_publish;
grant select on app.conversations to switchboard_publish;
grant select, insert, delete on app.publish_keys to switchboard_publish;
grant insert on switchboard.outbox to switchboard_publish;
