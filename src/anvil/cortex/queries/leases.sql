SELECT DISTINCT lease FROM card_stack WHERE stat = 1
