DELETE FROM card_stack
WHERE (:deck IS NULL OR deck = :deck)
    AND (stat <> 1 OR boot <> :boot OR lease_until < :now_boot)
