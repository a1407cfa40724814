SELECT content FROM decks WHERE digest = :digest
