INSERT INTO identities (key, card, body, origins, noted) VALUES (:key, :card, :body, :origins, :now)
ON CONFLICT (key, card) DO UPDATE SET origins = excluded.origins WHERE origins <> excluded.origins
