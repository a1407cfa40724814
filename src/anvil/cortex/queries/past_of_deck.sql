SELECT deck, id, seq, op, key, stat, ran, ms, at,
    coalesce((SELECT ret FROM past_rets WHERE sha256 = past_cards.ret), '') AS ret
FROM past_cards WHERE deck = :deck
UNION ALL
SELECT deck, id, seq, op, key, stat,
    stat = 2 AND EXISTS (
        SELECT 1 FROM results WHERE key = s.key AND card = s.id AND created = s.timestamp
    ),
    0, timestamp, ret
FROM card_stack AS s WHERE deck = :deck
ORDER BY 3
