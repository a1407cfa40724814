-- When a result was last of use, to the hour; one that is not here, when it was made.
CREATE TABLE uses (
    key  TEXT    PRIMARY KEY REFERENCES results (key) ON DELETE CASCADE,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where an artifact was put last, and what it was made from: JSON arrays of card keys, blobs and image digests.
CREATE TABLE released (
    path   TEXT    PRIMARY KEY CHECK (path <> ''),
    sha256 TEXT    NOT NULL,
    size   INTEGER NOT NULL,
    keys   TEXT    NOT NULL CHECK (json_valid(keys)),
    blobs  TEXT    NOT NULL CHECK (json_valid(blobs)),
    images TEXT    NOT NULL CHECK (json_valid(images)),
    at     INTEGER NOT NULL
) STRICT;
