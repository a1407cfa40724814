SELECT key, work, out, work_times, out_times, log, ret, card, op, duration_ms, worker, created
FROM results ORDER BY created
