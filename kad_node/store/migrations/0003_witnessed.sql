-- Checkpoints of simpuls that members confirm, and who does. Not folded from the feeds: cosignatures stand beside a log.

CREATE TABLE witnessed (feed INTEGER NOT NULL, size INTEGER NOT NULL, note BLOB NOT NULL, PRIMARY KEY (feed, size)) WITHOUT ROWID;

CREATE TABLE cosignature (
    feed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    witness TEXT NOT NULL,
    time INTEGER NOT NULL,
    lines BLOB NOT NULL,
    PRIMARY KEY (feed, size, witness)
) WITHOUT ROWID;
