UPDATE card_stack SET key = :key WHERE seq = :seq AND key <> :key
