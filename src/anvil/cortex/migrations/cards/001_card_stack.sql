-- The card stack. stat: 0 pending, 1 processing, 2 punched, 9 jammed.
-- waiting: how many of a card's needs are not punched; kept by triggers, so that a claim never looks at needs.
-- lease, attempts: the fence. lease_until: microseconds of boot time, under the boot id in boot.
CREATE TABLE card_stack (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    deck        TEXT    NOT NULL,
    id          TEXT    NOT NULL CHECK (id <> ''),
    op          TEXT    NOT NULL CHECK (op <> ''),
    pld         TEXT    NOT NULL,
    stat        INTEGER NOT NULL DEFAULT 0 CHECK (stat IN (0, 1, 2, 9)),
    ret         TEXT    NOT NULL DEFAULT '',
    timestamp   INTEGER NOT NULL,
    key         TEXT    NOT NULL DEFAULT '',
    needs       TEXT    NOT NULL DEFAULT '[]',
    waiting     INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    priority    INTEGER NOT NULL DEFAULT 0,
    hold        INTEGER NOT NULL DEFAULT 0 CHECK (hold IN (0, 1)),
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    reclaims    INTEGER NOT NULL DEFAULT 0 CHECK (reclaims >= 0),
    lease       TEXT    NOT NULL DEFAULT '',
    boot        TEXT    NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0,
    reason      TEXT    NOT NULL DEFAULT '',
    UNIQUE (deck, id),
    CHECK ((stat = 1) = (lease <> '')),
    CHECK (stat <> 1 OR (waiting = 0 AND hold = 0))
) STRICT;

-- Claimable cards, by operation: the best card of each operation is one look-up away.
CREATE INDEX card_ready ON card_stack (op, priority DESC, seq)
WHERE stat = 0 AND waiting = 0 AND hold = 0;
CREATE INDEX card_ready_of_deck ON card_stack (deck, op, priority DESC, seq)
WHERE stat = 0 AND waiting = 0 AND hold = 0;
CREATE INDEX card_leased ON card_stack (lease) WHERE stat = 1;
CREATE INDEX card_held ON card_stack (deck) WHERE stat = 0 AND hold = 1;
CREATE INDEX card_stat ON card_stack (deck, stat);

-- card needs needs.
CREATE TABLE need (
    card  INTEGER NOT NULL REFERENCES card_stack (seq) ON DELETE CASCADE,
    needs INTEGER NOT NULL REFERENCES card_stack (seq) ON DELETE CASCADE,
    PRIMARY KEY (card, needs),
    CHECK (card <> needs)
) STRICT, WITHOUT ROWID;

CREATE INDEX need_needs ON need (needs);

-- A card is pushed with waiting = the number of its needs; each need that is punched already counts down at once.
CREATE TRIGGER need_met AFTER INSERT ON need
WHEN (SELECT stat FROM card_stack WHERE seq = NEW.needs) = 2
BEGIN
    UPDATE card_stack SET waiting = waiting - 1 WHERE seq = NEW.card;
END;

CREATE TRIGGER need_punched AFTER UPDATE OF stat ON card_stack
WHEN NEW.stat = 2
BEGIN
    UPDATE card_stack SET waiting = waiting - 1
    WHERE seq IN (SELECT card FROM need WHERE needs = NEW.seq);
END;

CREATE TRIGGER card_is_fixed BEFORE UPDATE OF seq, deck, id, op, pld, needs ON card_stack
BEGIN
    SELECT RAISE(ABORT, 'what a card says is never changed');
END;

CREATE TRIGGER card_moves BEFORE UPDATE OF stat ON card_stack
WHEN NOT (
    (OLD.stat = 0 AND NEW.stat = 1)
    OR (OLD.stat = 1 AND NEW.stat IN (0, 2, 9))
    OR (OLD.stat = 9 AND NEW.stat = 0)
)
BEGIN
    SELECT RAISE(ABORT, 'a card moves 0 to 1, 1 to 0, 2 or 9, and 9 to 0 only');
END;

CREATE TRIGGER card_attempts BEFORE UPDATE OF stat, attempts ON card_stack
WHEN NEW.attempts <> OLD.attempts + (OLD.stat = 0 AND NEW.stat = 1)
BEGIN
    SELECT RAISE(ABORT, 'attempts count claims');
END;
