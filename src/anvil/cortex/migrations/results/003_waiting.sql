-- Which claimed card waits for a key that another one runs. The row goes when the card runs the key itself, and with
-- its lease, whatever ends that.
CREATE TABLE waiting (
    card INTEGER PRIMARY KEY REFERENCES card_stack (seq) ON DELETE CASCADE,
    key  TEXT    NOT NULL CHECK (key <> '')
) STRICT;

CREATE INDEX waiting_for ON waiting (key);

CREATE TRIGGER waiting_ended AFTER UPDATE OF stat ON card_stack
WHEN OLD.stat = 1
BEGIN
    DELETE FROM waiting WHERE card = NEW.seq;
END;

CREATE TRIGGER waiting_is_over AFTER INSERT ON running
BEGIN
    DELETE FROM waiting WHERE card = NEW.card;
END;

CREATE TRIGGER waiting_needs_lease BEFORE INSERT ON waiting
WHEN coalesce((SELECT stat FROM card_stack WHERE seq = NEW.card), 0) <> 1
BEGIN
    SELECT RAISE(ABORT, 'only a claimed card waits for a key');
END;
