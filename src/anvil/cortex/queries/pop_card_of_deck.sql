-- The best claimable card: highest priority, then lowest seq, among the operations asked for. The recursion hops from
-- one operation to the next in the index, so the cost is a few look-ups for each operation, however many cards there are.
UPDATE card_stack
SET stat = 1, lease = :worker, boot = :boot, lease_until = :until, attempts = attempts + 1, timestamp = :now, reason = ''
WHERE stat = 0 AND seq = (
    WITH RECURSIVE operation (op) AS (
        SELECT (SELECT min(op) FROM card_stack WHERE stat = 0 AND waiting = 0 AND hold = 0 AND deck = :deck)
        UNION ALL
        SELECT (
            SELECT min(op) FROM card_stack
            WHERE stat = 0 AND waiting = 0 AND hold = 0 AND deck = :deck AND op > operation.op
        )
        FROM operation WHERE operation.op IS NOT NULL
    )
    SELECT best.seq
    FROM operation JOIN card_stack AS best ON best.seq = (
        SELECT seq FROM card_stack
        WHERE stat = 0 AND waiting = 0 AND hold = 0 AND deck = :deck AND op = operation.op
        ORDER BY priority DESC, seq LIMIT 1
    )
    WHERE (:only IS NULL OR operation.op IN (SELECT value FROM json_each(:only)))
        AND operation.op NOT IN (SELECT value FROM json_each(:except))
    ORDER BY best.priority DESC, best.seq LIMIT 1
)
RETURNING seq, id, op, pld, stat, ret, timestamp, deck, key, needs, attempts, lease, hold
