SELECT stat, count(*) FROM card_stack GROUP BY stat
