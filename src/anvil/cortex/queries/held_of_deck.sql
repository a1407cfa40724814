SELECT count(*) FROM card_stack WHERE stat = 0 AND hold = 1 AND deck = :deck
