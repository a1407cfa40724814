SELECT id FROM card_stack UNION SELECT card FROM results ORDER BY 1
