INSERT INTO results (key, work, out, work_times, out_times, log, ret, card, op, duration_ms, worker, created)
VALUES (:key, :work, :out, :work_times, :out_times, :log, :ret, :card, :op, :duration_ms, :worker, :created)
ON CONFLICT (key) DO NOTHING
