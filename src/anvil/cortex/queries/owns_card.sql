SELECT 1 FROM card_stack WHERE seq = :seq AND lease = :lease AND attempts = :attempts AND stat = 1
