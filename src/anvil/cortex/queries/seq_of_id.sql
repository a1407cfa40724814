SELECT id, seq FROM card_stack WHERE deck = ?1 AND id = ?2
