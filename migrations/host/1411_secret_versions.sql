-- The versions of a secret rise over its removal. A value is sealed for its name and version, so a value of before the removal
-- opens in no later row.

alter table switchboard.fleet add column secrets_removed_version bigint not null default 0;
comment on column switchboard.fleet.secrets_removed_version is
  'The highest version of a secret that was removed. A secret that is set newly begins above it.';
