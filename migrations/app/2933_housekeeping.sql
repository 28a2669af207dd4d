-- What `housekeeping` may do: call what makes and drops months, and clean keys.
select switchboard.ensure_role('housekeeping');
grant usage on schema app to switchboard_housekeeping;
grant execute on function app.ensure_partitions(integer), app.drop_months(text, integer) to switchboard_housekeeping;
grant select, delete on app.message_keys to switchboard_housekeeping;
