UPDATE card_stack
SET stat = 0, timestamp = :now, reason = :reason, lease = '', boot = '', lease_until = 0
WHERE seq = :seq AND lease = :lease AND attempts = :attempts AND stat = 1
