-- The best claimable cards of an operation.
SELECT op, priority, seq FROM card_stack
WHERE stat = 0 AND waiting = 0 AND hold = 0 AND op = :op
ORDER BY priority DESC, seq LIMIT :most
