UPDATE card_stack SET hold = 0, timestamp = :now, reason = :reason
WHERE deck = :deck AND id = :id AND stat = 0 AND hold = 1
