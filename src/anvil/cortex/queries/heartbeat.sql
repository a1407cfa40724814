UPDATE card_stack SET lease_until = :until, boot = :boot
WHERE seq = :seq AND lease = :lease AND attempts = :attempts AND stat = 1
