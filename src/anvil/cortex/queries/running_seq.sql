SELECT card FROM running WHERE key = :key
