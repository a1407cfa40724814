DELETE FROM results
WHERE key IN (SELECT value FROM json_each(:keys))
    AND created <= :since
    AND key NOT IN (SELECT key FROM card_stack)
    AND NOT EXISTS (SELECT 1 FROM uses WHERE uses.key = results.key AND uses.used > :since)
