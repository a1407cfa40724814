SELECT id, key, ms, at FROM past_cards
WHERE ran = 1 AND ms > 0 AND id IN (SELECT value FROM json_each(:cards))
UNION
SELECT card, key, duration_ms, created FROM results
WHERE duration_ms > 0 AND card IN (SELECT value FROM json_each(:cards))
ORDER BY 1, 4 DESC
