INSERT INTO facts (name, value, updated) VALUES (:name, :value, :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated = excluded.updated
