-- What the feeds say, folded. Derived: dropped and made again when the folding changes.

CREATE TABLE member (
    feed INTEGER PRIMARY KEY,
    simpul INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    state INTEGER NOT NULL,
    category INTEGER NOT NULL
);

CREATE TABLE observation (
    feed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    observer INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (feed, size, observer)
) WITHOUT ROWID;

CREATE TABLE profile (feed INTEGER PRIMARY KEY, idx INTEGER NOT NULL, data BLOB NOT NULL);

CREATE TABLE record (
    rid INTEGER PRIMARY KEY,
    feed INTEGER NOT NULL,
    ulid TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    start_time INTEGER,
    end_time INTEGER,
    retraction TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX record_ulid ON record (feed, ulid);
CREATE INDEX record_updated ON record (updated, rid);
CREATE INDEX record_created ON record (created, rid);
CREATE INDEX record_start ON record (start_time, rid) WHERE start_time IS NOT NULL;

-- idx is NULL while the version waits in the outbox, and outbox then names it.
CREATE TABLE version (
    rid INTEGER NOT NULL,
    version INTEGER NOT NULL,
    idx INTEGER,
    outbox INTEGER,
    audience INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (rid, version)
) WITHOUT ROWID;

-- field: region (every level of the code), sector, tag.
CREATE TABLE term (
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    rid INTEGER NOT NULL,
    PRIMARY KEY (field, value, rid)
) WITHOUT ROWID;
CREATE INDEX term_rid ON term (rid);

CREATE VIRTUAL TABLE record_text USING fts5 (stems, words, tokenize = "unicode61 remove_diacritics 2", prefix = '2 3');

CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    rid INTEGER NOT NULL,
    version INTEGER NOT NULL,
    type INTEGER NOT NULL,
    time INTEGER NOT NULL
);

CREATE TABLE problem (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    feed INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    time INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    UNIQUE (feed, idx)
);
