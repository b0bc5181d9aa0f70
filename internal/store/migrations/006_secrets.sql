-- Values that nobody is to see: sealed is encrypted with a key that lies outside the database.
CREATE TABLE secrets (owner TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (owner, name));
