-- What a card key is known to give. Digests name manifests and blobs of the vault; '' where there is none.
CREATE TABLE results (
    key         TEXT    PRIMARY KEY CHECK (key <> ''),
    work        TEXT    NOT NULL,
    out         TEXT    NOT NULL,
    work_times  TEXT    NOT NULL,
    out_times   TEXT    NOT NULL,
    log         TEXT    NOT NULL,
    ret         TEXT    NOT NULL,
    card        TEXT    NOT NULL,
    op          TEXT    NOT NULL,
    duration_ms INTEGER NOT NULL CHECK (duration_ms >= 0),
    worker      TEXT    NOT NULL,
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Estimates: the last durations of a card's name.
CREATE INDEX result_of_card ON results (card, created DESC, duration_ms);

-- The first result of a key stays until it is forgotten.
CREATE TRIGGER result_is_fixed BEFORE UPDATE ON results
BEGIN
    SELECT RAISE(ABORT, 'a result is forgotten or kept, never changed');
END;

CREATE TRIGGER result_kept AFTER INSERT ON results
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        NEW.created, 121,
        json_object(
            'id', NEW.card, 'key', NEW.key, 'log', NEW.log, 'op', NEW.op, 'out', NEW.out,
            'ret', anvil_sha256(NEW.ret), 'work', NEW.work, 'worker', NEW.worker
        )
    );
END;

CREATE TRIGGER result_forgotten AFTER DELETE ON results
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        anvil_now_us(), 122,
        json_object('id', OLD.card, 'key', OLD.key, 'op', OLD.op, 'out', OLD.out, 'work', OLD.work)
    );
END;
