SELECT mine.lease, mine.id, theirs.lease, theirs.deck, theirs.id
FROM card_stack AS mine
JOIN running ON running.card = mine.seq
JOIN waiting ON waiting.key = running.key
JOIN card_stack AS theirs ON theirs.seq = waiting.card
WHERE mine.stat = 1 AND mine.lease IN (SELECT value FROM json_each(:workers))
ORDER BY mine.seq, theirs.seq
