UPDATE card_stack SET stat = 0, ret = '', timestamp = :now, reason = ''
WHERE deck = :deck AND id = :id AND stat = 9
