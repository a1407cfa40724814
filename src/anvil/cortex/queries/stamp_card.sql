UPDATE card_stack
SET stat = :stat, ret = :ret, key = iif(:key <> '', :key, key), timestamp = :now, lease = '', boot = '', lease_until = 0
WHERE seq = :seq AND lease = :lease AND attempts = :attempts AND stat = 1
