-- The log: what was signed, byte for byte, and the tree over it. Everything else in this database can be made again from it.
--
-- Keys are integers made of the feed's local number and a position (feed << 40 | index), so that every insert lands at the right
-- edge of its feed and no second index is needed. Local numbers never leave this database.

CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE feed (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    federation TEXT NOT NULL,
    forum TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    genesis BLOB NOT NULL,
    size INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    frontier BLOB NOT NULL,
    root BLOB NOT NULL,
    checkpoint BLOB NOT NULL,
    signed_size INTEGER NOT NULL,
    target BLOB NOT NULL,
    log_keys BLOB NOT NULL,
    role INTEGER NOT NULL,
    authority_index INTEGER NOT NULL,
    quarantine TEXT NOT NULL,
    folded INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX feed_forum ON feed (forum, federation, epoch);

CREATE TABLE entry (pos INTEGER PRIMARY KEY, body BLOB NOT NULL, content BLOB NOT NULL);

-- feed << 40 | level << 37 | index of the tile; up to 256 hashes of 32 bytes.
CREATE TABLE tile (pos INTEGER PRIMARY KEY, hashes BLOB NOT NULL);

CREATE TABLE pinned_checkpoint (
    feed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (feed, size)
) WITHOUT ROWID;

CREATE TABLE evidence (id INTEGER PRIMARY KEY, feed INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL);

-- Local affairs of this node that no one else needs: request ids, invitations, the fence, pending contents.
CREATE TABLE local (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- Changes that wait until this node may sign again, in the order in which they were made.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    record TEXT NOT NULL,
    entry BLOB NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX outbox_record ON outbox (record);

-- What was refused and never stored, counted.
CREATE TABLE refusal (reason TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
