DELETE FROM running WHERE card = :seq AND key <> :key
