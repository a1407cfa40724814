INSERT INTO uses (key, used)
SELECT key, :now FROM results WHERE key IN (SELECT value FROM json_each(:keys))
ON CONFLICT (key) DO UPDATE SET used = excluded.used
