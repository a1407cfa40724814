SELECT seq FROM card_stack WHERE deck = :deck AND id = :id
