-- Feeds of one member follow each other when it begins anew. Derived, like all that is folded.

-- Feed that was given up, how many of its entries stay good, the feed that goes on with them, and when (microseconds since 1970).
CREATE TABLE succession (feed INTEGER PRIMARY KEY, good INTEGER NOT NULL, heir INTEGER NOT NULL, time INTEGER NOT NULL);
CREATE INDEX succession_heir ON succession (heir);

-- Where in the simpul's feed a feed's genesis was named.
CREATE TABLE admission (feed INTEGER PRIMARY KEY, simpul INTEGER NOT NULL, idx INTEGER NOT NULL);

-- A record belongs to its forum's newest feed. The feed in which a version's entry lies, where that is an earlier one; else NULL.
ALTER TABLE version ADD COLUMN feed INTEGER;
