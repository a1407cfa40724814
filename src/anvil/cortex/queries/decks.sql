SELECT deck, max(stat = 1), max(stat = 9) FROM card_stack GROUP BY deck
