SELECT card, duration_ms FROM results
WHERE card IN (SELECT value FROM json_each(:cards))
ORDER BY card, created DESC
