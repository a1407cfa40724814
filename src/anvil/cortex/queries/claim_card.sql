UPDATE card_stack
SET stat = 1, lease = :worker, boot = :boot, lease_until = :until, attempts = attempts + 1, timestamp = :now, reason = ''
WHERE seq = :seq AND stat = 0 AND waiting = 0 AND hold = 0
