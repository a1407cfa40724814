SELECT seq, id, op, pld, stat, ret, timestamp, deck, key, needs, attempts, lease, hold
FROM card_stack WHERE seq = ?1
