-- What a caller's key for a request has led to, so that a repeated request is answered and not done
-- again. digest is of the request.
CREATE TABLE request_keys (
  owner TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, result TEXT NOT NULL, created INTEGER NOT NULL,
  PRIMARY KEY (owner, key)) WITHOUT ROWID;
CREATE INDEX request_keys_created ON request_keys (created);
