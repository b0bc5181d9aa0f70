-- What machines of a pool were made like, by pool and number: what a rollout goes back to.
CREATE TABLE rollouts (pool TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pool, n)) WITHOUT ROWID;
