SELECT id, seq FROM card_stack
WHERE deck = :deck AND id IN (SELECT value FROM json_each(:ids))
