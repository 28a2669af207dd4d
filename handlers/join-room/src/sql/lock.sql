select switchboard.lock($2::text[]) where $1::int[] is not null
