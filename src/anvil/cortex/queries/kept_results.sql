SELECT results.key, results.card, results.ret, results.created, coalesce(uses.used, results.created)
FROM results LEFT JOIN uses ON uses.key = results.key
