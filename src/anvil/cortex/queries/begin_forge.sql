INSERT INTO forges (id, deck, recipe, started, machine) VALUES (:id, :deck, :recipe, :now, :machine)
