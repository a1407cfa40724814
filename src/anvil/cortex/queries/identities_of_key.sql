SELECT card, body, origins FROM identities WHERE key = :key ORDER BY card <> :card, noted DESC
