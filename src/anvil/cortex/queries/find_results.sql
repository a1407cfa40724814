SELECT key, work, out, work_times, out_times, log, ret, card, op, duration_ms, worker, created
FROM results WHERE key IN (SELECT value FROM json_each(:keys))
