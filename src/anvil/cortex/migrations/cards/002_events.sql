-- Every change of a card's state is an event of the ledger, written by the database in the same transaction.
-- json_object() with its names in order gives the canonical form. Kinds are those of kinds.py.
CREATE TRIGGER card_pushed AFTER INSERT ON card_stack
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        NEW.timestamp, 117,
        json_object(
            'deck', NEW.deck, 'id', NEW.id, 'key', NEW.key, 'needs', json(NEW.needs), 'op', NEW.op,
            'pld', anvil_sha256(NEW.pld), 'ret', anvil_sha256(NEW.ret), 'seq', NEW.seq, 'stat', NEW.stat
        )
    );
END;

CREATE TRIGGER card_moved AFTER UPDATE OF stat ON card_stack
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        NEW.timestamp,
        CASE
            WHEN NEW.stat = 1 THEN 110
            WHEN NEW.stat = 2 THEN 112
            WHEN NEW.stat = 9 THEN 520
            WHEN OLD.stat = 9 THEN 118
            WHEN NEW.reclaims > OLD.reclaims THEN 115
            ELSE 116
        END,
        json_object(
            'attempt', NEW.attempts, 'deck', NEW.deck, 'id', NEW.id, 'key', NEW.key, 'op', NEW.op,
            'reason', NEW.reason, 'ret', anvil_sha256(NEW.ret), 'seq', NEW.seq,
            'worker', iif(NEW.lease <> '', NEW.lease, OLD.lease)
        )
    );
END;

CREATE TRIGGER card_approved AFTER UPDATE OF hold ON card_stack
WHEN OLD.hold <> NEW.hold
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        NEW.timestamp, 119,
        json_object('deck', NEW.deck, 'hold', NEW.hold, 'id', NEW.id, 'reason', NEW.reason, 'seq', NEW.seq)
    );
END;

CREATE TRIGGER card_cleared AFTER DELETE ON card_stack
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        anvil_now_us(), 106,
        json_object('deck', OLD.deck, 'id', OLD.id, 'seq', OLD.seq, 'stat', OLD.stat, 'worker', OLD.lease)
    );
END;
