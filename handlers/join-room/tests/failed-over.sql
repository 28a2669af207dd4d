-- The third message was written after a failover that lost one which had the same seq.
insert into switchboard.epochs (ordinal, epoch, system_identifier, timeline)
  select 5, '019b0000-0000-7000-8000-0000000000e5', system_identifier, timeline from switchboard.epochs where ordinal = 0;
update app.messages set epoch = 5 where id = '019aa117-0002-7000-8000-000000000003';
