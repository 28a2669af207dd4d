-- Ids of one conversation strictly increase with seq. Before, an id was only never in an earlier millisecond than the id
-- before it, so the ids of one millisecond could be in another order than their messages.

-- The next id above `head`: the 74 random bits of `head` are a counter, which this raises by 1 to 2^48. The step comes from
-- the randomness of `id`, so ids stay hard to guess, and two ids that a batch makes above the same head differ. When the
-- counter is full, its carry raises the millisecond.
create function app.id_above(head uuid, id uuid) returns uuid
  language plpgsql immutable strict parallel safe as $$
declare
  was text := replace(head::text, '-', '');
  -- 62 bits: the mask of those behind the variant.
  mask constant bigint := 4611686018427387903;
  -- The 48 bits of the millisecond and the 12 behind the version.
  high bigint := ('x' || left(was, 12) || substr(was, 14, 3))::bit(60)::bigint;
  -- The 62 bits behind the variant, raised; the sum has at most 63 bits.
  low bigint := (('x' || right(was, 16))::bit(64)::bigint & mask) + 1 + ('x' || right(id::text, 12))::bit(48)::bigint;
  digits text;
begin
  digits := lpad(to_hex(high + (low >> 62)), 15, '0');
  return (left(digits, 12) || '7' || right(digits, 3) || to_hex(low & mask | (1::bigint << 63)))::uuid;
end $$;

-- The id of the message after `head`: as it is, or, where it is not above the one before it (the same millisecond, or a
-- clock that lags), the next one above that.
create or replace function app.id_after(head uuid, id uuid) returns uuid
  language sql immutable parallel safe
  return case when head >= id then app.id_above(head, id) else id end;
