SELECT 1 FROM card_stack WHERE seq = :seq AND attempts = :attempts AND stat = :stat AND ret = :ret
