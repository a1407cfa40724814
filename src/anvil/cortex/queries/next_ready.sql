-- The best claimable card (highest priority, then lowest seq) of the first operation after :op: one look-up in card_ready.
SELECT op, priority, seq FROM card_stack
WHERE stat = 0 AND waiting = 0 AND hold = 0 AND op > :op
ORDER BY op, priority DESC, seq LIMIT 1
