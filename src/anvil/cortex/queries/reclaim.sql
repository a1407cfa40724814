UPDATE card_stack
SET stat = 0, reclaims = reclaims + 1, timestamp = :now, lease = '', boot = '', lease_until = 0,
    reason = CASE
        WHEN boot <> :boot THEN 'the machine was restarted'
        WHEN lease IN (SELECT value FROM json_each(:dead)) THEN 'the worker is gone'
        ELSE 'the lease expired'
    END
WHERE stat = 1
    AND (boot <> :boot OR lease_until < :now_boot OR lease IN (SELECT value FROM json_each(:dead)))
RETURNING seq, id, op, pld, stat, ret, timestamp, deck, key, needs, attempts, lease, hold
