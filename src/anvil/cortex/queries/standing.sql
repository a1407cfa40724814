-- A card's priority, and the highest of all cards of its deck that are not done: one look-up in card_stat.
SELECT own.priority, max(other.priority)
FROM card_stack AS own JOIN card_stack AS other ON other.deck = own.deck
WHERE own.seq = :seq AND other.stat IN (0, 1)
