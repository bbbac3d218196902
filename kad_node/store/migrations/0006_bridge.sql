-- What simpuls say about members: each about its own, and a simpul that is a member of several federations stands in each of them.

DROP TABLE member;
CREATE TABLE member (
    feed INTEGER NOT NULL,
    simpul INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    state INTEGER NOT NULL,
    category INTEGER NOT NULL,
    PRIMARY KEY (feed, simpul)
) WITHOUT ROWID;

-- Where in a simpul's feed a feed's genesis was named.
DROP TABLE admission;
CREATE TABLE admission (
    feed INTEGER NOT NULL,
    simpul INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY (feed, simpul)
) WITHOUT ROWID;

CREATE INDEX feed_federation ON feed (federation);
