INSERT INTO decks (digest, content, created) VALUES (:digest, :content, :now) ON CONFLICT (digest) DO NOTHING
