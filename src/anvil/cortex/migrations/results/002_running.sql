-- Which card runs a key now. The row goes with the card's lease, whatever ends that.
CREATE TABLE running (
    key     TEXT    PRIMARY KEY CHECK (key <> ''),
    card    INTEGER NOT NULL UNIQUE REFERENCES card_stack (seq) ON DELETE CASCADE,
    started INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER running_ended AFTER UPDATE OF stat ON card_stack
WHEN OLD.stat = 1
BEGIN
    DELETE FROM running WHERE card = NEW.seq;
END;

CREATE TRIGGER running_needs_lease BEFORE INSERT ON running
WHEN coalesce((SELECT stat FROM card_stack WHERE seq = NEW.card), 0) <> 1
BEGIN
    SELECT RAISE(ABORT, 'only a claimed card runs a key');
END;
