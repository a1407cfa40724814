UPDATE card_stack
SET stat = 1, lease = ?2, boot = ?3, lease_until = ?4, attempts = attempts + 1, timestamp = ?5, reason = ''
WHERE seq = ?1 AND stat = 0 AND waiting = 0 AND hold = 0
