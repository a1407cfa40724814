SELECT id, deck, recipe, started, ended, verdict, machine FROM forges WHERE deck = :deck
