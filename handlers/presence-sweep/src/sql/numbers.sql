select n from unnest($1::int[]) as n
