INSERT INTO card_stack (seq, deck, id, op, pld, stat, ret, timestamp, key, needs, waiting, priority, hold)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, json_array_length(?10), ?11, ?12)
