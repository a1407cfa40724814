SELECT count(*) FROM card_stack WHERE stat = 0 AND waiting = 0 AND hold = 0 AND deck = :deck
