UPDATE forges SET ended = :now, verdict = :verdict WHERE id = :id AND ended = 0
