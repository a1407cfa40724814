SELECT p.deck, p.id, p.seq, p.op, p.key, p.stat, p.ran, p.ms, p.at, '' AS ret
FROM past_cards AS p JOIN forges AS f ON f.deck = p.deck
WHERE p.id = :card AND p.stat IN (2, 9)
UNION ALL
SELECT s.deck, s.id, s.seq, s.op, s.key, s.stat,
    s.stat = 2 AND EXISTS (
        SELECT 1 FROM results WHERE key = s.key AND card = s.id AND created = s.timestamp
    ),
    0, s.timestamp, s.ret
FROM card_stack AS s JOIN forges AS f ON f.deck = s.deck
WHERE s.id = :card AND s.stat IN (2, 9)
ORDER BY 3 DESC LIMIT :limit
