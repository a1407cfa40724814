INSERT INTO ledger (at_us, kind, body) VALUES (:now, :kind, :body)
