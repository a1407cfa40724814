INSERT INTO running (key, card, started)
SELECT :key, :seq, :now
WHERE NOT EXISTS (SELECT 1 FROM results WHERE key = :key)
ON CONFLICT (key) DO NOTHING
