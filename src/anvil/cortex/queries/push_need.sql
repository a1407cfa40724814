INSERT INTO need (card, needs) VALUES (?1, ?2)
