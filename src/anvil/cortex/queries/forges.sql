SELECT id, deck, recipe, started, ended, verdict, machine FROM forges ORDER BY started DESC, rowid DESC LIMIT :limit
