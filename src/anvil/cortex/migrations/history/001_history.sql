-- What was, for "why", "diff" and estimates: kept when the stack is cleared and when results are forgotten. Nothing
-- here decides what runs.

-- What a card key is the hash of: body is that canonical JSON, so the key proves it. origins: where each of the
-- digests in it came from, which is no part of the key.
CREATE TABLE identities (
    key     TEXT    NOT NULL CHECK (key <> ''),
    card    TEXT    NOT NULL CHECK (card <> ''),
    body    TEXT    NOT NULL CHECK (json_valid(body)),
    origins TEXT    NOT NULL CHECK (json_valid(origins)),
    noted   INTEGER NOT NULL,
    PRIMARY KEY (key, card)
) STRICT, WITHOUT ROWID;

-- What a digest stands for: a source's version, the packages of a base image. JSON.
CREATE TABLE pins (
    digest TEXT    PRIMARY KEY CHECK (digest <> ''),
    body   TEXT    NOT NULL CHECK (json_valid(body)),
    noted  INTEGER NOT NULL
) STRICT;

-- The cards of forges as they left the stack. ran: whether the card made its result itself, in ms milliseconds.
-- ret: the sha256 of what it was stamped with, in past_rets.
CREATE TABLE past_cards (
    deck TEXT    NOT NULL,
    id   TEXT    NOT NULL,
    seq  INTEGER NOT NULL,
    op   TEXT    NOT NULL,
    key  TEXT    NOT NULL,
    stat INTEGER NOT NULL,
    ran  INTEGER NOT NULL CHECK (ran IN (0, 1)),
    ms   INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    ret  TEXT    NOT NULL,
    PRIMARY KEY (deck, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX past_card_of_id ON past_cards (id, at DESC);

CREATE TABLE past_rets (
    sha256 TEXT PRIMARY KEY,
    ret    TEXT NOT NULL
) STRICT;

CREATE INDEX forge_of_deck ON forges (deck);

-- A card made its result itself when both were written in the same stamp: their times are the same.
CREATE TRIGGER card_is_past AFTER DELETE ON card_stack
WHEN EXISTS (SELECT 1 FROM forges WHERE deck = OLD.deck)
BEGIN
    INSERT INTO past_rets (sha256, ret) VALUES (anvil_sha256(OLD.ret), OLD.ret) ON CONFLICT (sha256) DO NOTHING;
    INSERT INTO past_cards (deck, id, seq, op, key, stat, ran, ms, at, ret)
    VALUES (
        OLD.deck, OLD.id, OLD.seq, OLD.op, OLD.key, OLD.stat,
        OLD.stat = 2 AND EXISTS (
            SELECT 1 FROM results WHERE key = OLD.key AND card = OLD.id AND created = OLD.timestamp
        ),
        CASE WHEN OLD.stat = 2 AND json_valid(OLD.ret)
            THEN coalesce(CAST(OLD.ret ->> '$.data.ms' AS INTEGER), 0) ELSE 0 END,
        OLD.timestamp, anvil_sha256(OLD.ret)
    )
    ON CONFLICT (deck, id) DO NOTHING;
END;
