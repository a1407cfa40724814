SELECT count(*), coalesce(sum(length(content)), 0) FROM decks WHERE created < :before
