SELECT seq, at_us, kind, body, prev, hash FROM events
WHERE seq > :after
    AND (:kind IS NULL OR kind = :kind)
    AND (:card IS NULL OR body ->> '$.id' = :card)
    AND (:deck IS NULL OR body ->> '$.deck' = :deck)
ORDER BY seq LIMIT :limit
