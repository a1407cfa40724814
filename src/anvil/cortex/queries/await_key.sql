INSERT INTO waiting (card, key) VALUES (:seq, :key)
ON CONFLICT (card) DO UPDATE SET key = excluded.key
