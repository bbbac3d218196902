-- What members decide, judged in the order of the simpul's log. Derived, like all that is folded, but for the times in authority_entry.

ALTER TABLE feed ADD COLUMN judged INTEGER NOT NULL DEFAULT 0;

-- Entries with which an author decides something, and since when this node holds them (microseconds since 1970): a simpul that does not
-- observe them in time is not confirmed any more.
CREATE TABLE authority_entry (feed INTEGER NOT NULL, idx INTEGER NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (feed, idx)) WITHOUT ROWID;

CREATE TABLE affair (
    simpul INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (simpul, kind, key)
) WITHOUT ROWID;

-- Where the entries of a record lie: 0 in its forum's own feed, otherwise the simpul's that published it in the forum's name.
ALTER TABLE record ADD COLUMN source INTEGER NOT NULL DEFAULT 0;
DROP INDEX record_ulid;
CREATE UNIQUE INDEX record_ulid ON record (feed, ulid, source);
