SELECT results.key FROM results LEFT JOIN uses ON uses.key = results.key
WHERE results.key IN (SELECT value FROM json_each(:keys)) AND coalesce(uses.used, results.created) < :stale
