SELECT max(at_us) FROM events WHERE kind = 122 AND body ->> '$.key' = :key
