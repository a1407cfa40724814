SELECT stat, count(*) FROM card_stack WHERE deck = :deck GROUP BY stat
