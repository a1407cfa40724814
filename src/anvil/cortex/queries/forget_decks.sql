DELETE FROM decks WHERE created < :before
