SELECT card.seq, card.id, card.op, card.pld, card.stat, card.ret, card.timestamp, card.deck, card.key, card.needs,
    card.attempts, card.lease, card.hold
FROM running JOIN card_stack AS card ON card.seq = running.card
WHERE running.key = :key
