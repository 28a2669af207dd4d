-- What a key stands for: $1 publisher · $2 key.
select event_id as id, fingerprint from app.publish_keys where publisher = $1 and key = $2
