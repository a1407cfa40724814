-- Runs of `anvil forge`, for history. machine: canonical JSON. ended: 0 and verdict: '' while it runs.
CREATE TABLE forges (
    id      TEXT    PRIMARY KEY CHECK (id <> ''),
    deck    TEXT    NOT NULL,
    recipe  TEXT    NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER NOT NULL DEFAULT 0,
    verdict TEXT    NOT NULL DEFAULT '',
    machine TEXT    NOT NULL CHECK (json_valid(machine)),
    CHECK ((ended = 0) = (verdict = ''))
) STRICT;

CREATE INDEX forge_started ON forges (started);

CREATE TRIGGER forge_started_event AFTER INSERT ON forges
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (NEW.started, 100, json_object('deck', NEW.deck, 'forge', NEW.id, 'recipe', NEW.recipe));
END;

CREATE TRIGGER forge_ended_event AFTER UPDATE OF ended ON forges
BEGIN
    INSERT INTO ledger (at_us, kind, body)
    VALUES (
        NEW.ended, 101,
        json_object('deck', NEW.deck, 'forge', NEW.id, 'recipe', NEW.recipe, 'verdict', NEW.verdict)
    );
END;
