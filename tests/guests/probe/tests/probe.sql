select switchboard.ensure_role('probe');
create schema probe;
grant usage on schema probe to switchboard_probe;
create table probe.things (id int constraint things_unique primary key, name text not null check (name <> 'bad'));
insert into probe.things values (1, 'one'), (2, 'two');
grant select, insert, update, delete on probe.things to switchboard_probe;
create table probe.secrets (id int);
