-- Small things worth remembering (a probe's answer), and decks by the digest of what they were evaluated from.
CREATE TABLE facts (
    name    TEXT    PRIMARY KEY CHECK (name <> ''),
    value   TEXT    NOT NULL,
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE decks (
    digest  TEXT    PRIMARY KEY CHECK (digest <> ''),
    content BLOB    NOT NULL,
    created INTEGER NOT NULL
) STRICT;
