-- The ledger: a chain of events. hash = anvil_event_hash(prev, seq, at_us, kind, body); see ledger.py for the bytes.
-- AUTOINCREMENT remembers the last number, so that a tail cut off by hand is noticed.
CREATE TABLE events (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us INTEGER NOT NULL,
    kind  INTEGER NOT NULL CHECK (kind BETWEEN 100 AND 999),
    body  TEXT    NOT NULL CHECK (json_valid(body)),
    prev  BLOB    NOT NULL CHECK (length(prev) = 32),
    hash  BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER events_chain BEFORE INSERT ON events
WHEN NEW.seq IS NOT 1 + coalesce((SELECT max(seq) FROM events), 0)
    OR NEW.prev IS NOT coalesce((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), zeroblob(32))
    OR NEW.hash IS NOT anvil_event_hash(NEW.prev, NEW.seq, NEW.at_us, NEW.kind, NEW.body)
BEGIN
    SELECT RAISE(ABORT, 'the ledger takes an event only at its end, chained to the one before');
END;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: no event is changed');
END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: no event is deleted');
END;

-- The way in: INSERT INTO ledger (at_us, kind, body). Numbers and hashes are filled in here.
CREATE VIEW ledger AS SELECT at_us, kind, body FROM events;

CREATE TRIGGER ledger_append INSTEAD OF INSERT ON ledger
BEGIN
    INSERT INTO events (seq, at_us, kind, body, prev, hash)
    SELECT last.seq + 1, NEW.at_us, NEW.kind, NEW.body, last.hash,
        anvil_event_hash(last.hash, last.seq + 1, NEW.at_us, NEW.kind, NEW.body)
    FROM (
        SELECT coalesce(max(seq), 0) AS seq,
            coalesce((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), zeroblob(32)) AS hash
        FROM events
    ) AS last;
END;
