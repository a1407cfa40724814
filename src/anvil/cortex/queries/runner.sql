SELECT card_stack.lease FROM running JOIN card_stack ON card_stack.seq = running.card WHERE running.key = :key
