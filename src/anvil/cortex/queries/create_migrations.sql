CREATE TABLE migrations (
    component TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    digest    TEXT    NOT NULL,
    applied   INTEGER NOT NULL,
    PRIMARY KEY (component, number)
) STRICT, WITHOUT ROWID
