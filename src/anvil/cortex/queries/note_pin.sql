INSERT INTO pins (digest, body, noted) VALUES (:digest, :body, :now) ON CONFLICT (digest) DO NOTHING
