-- What the autoscaler saw and decided, by pool and time.
CREATE TABLE scalings (pool TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pool, at)) WITHOUT ROWID;
