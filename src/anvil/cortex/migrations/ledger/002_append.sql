-- The way in as before, without a SELECT as the source of the INSERT: SQLite puts the rows of one that reads its own
-- target into a table aside first, which took longer than everything else here.
DROP TRIGGER ledger_append;

CREATE TRIGGER ledger_append INSTEAD OF INSERT ON ledger
BEGIN
    INSERT INTO events (seq, at_us, kind, body, prev, hash)
    VALUES (
        1 + coalesce((SELECT max(seq) FROM events), 0), NEW.at_us, NEW.kind, NEW.body,
        coalesce((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), zeroblob(32)),
        anvil_event_hash(
            coalesce((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), zeroblob(32)),
            1 + coalesce((SELECT max(seq) FROM events), 0), NEW.at_us, NEW.kind, NEW.body
        )
    );
END;
