-- Counters that only grow: 'rev' is the store's revision, 'job' the last job number.
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('rev', 0), ('job', 0);

-- Objects. body is the JSON form of the API; the other columns repeat what is searched for.
-- rev and created_rev come from the counter; created is in the body.
CREATE TABLE pools       (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE shares      (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE users       (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE user_groups (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL);

CREATE TABLE machines (
  key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL,
  pool TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX machines_live ON machines (key) WHERE state <> 'gone';
CREATE INDEX machines_pool ON machines (pool, key) WHERE state <> 'gone';
CREATE INDEX machines_newest ON machines (created_rev);

CREATE TABLE sessions (
  key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL,
  pool TEXT NOT NULL, machine TEXT NOT NULL, user TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX sessions_live ON sessions (key) WHERE state <> 'ended';
CREATE INDEX sessions_pool ON sessions (pool, key) WHERE state <> 'ended';
CREATE INDEX sessions_machine ON sessions (machine, key) WHERE state <> 'ended';
CREATE INDEX sessions_newest ON sessions (created_rev);

CREATE TABLE jobs (
  key INTEGER PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL,
  pool TEXT NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX jobs_active ON jobs (key) WHERE state IN ('queued', 'starting', 'running');
CREATE INDEX jobs_user ON jobs (user, key);
CREATE INDEX jobs_name ON jobs (name, key);

-- Attempts at tasks; latest is 1 on the newest of each task. Times are unix nanoseconds, 0 for none.
CREATE TABLE attempts (
  job INTEGER NOT NULL, idx INTEGER NOT NULL, attempt INTEGER NOT NULL,
  latest INTEGER NOT NULL, machine TEXT NOT NULL, user TEXT NOT NULL, state TEXT NOT NULL, ended INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (job, idx, attempt)) WITHOUT ROWID;
CREATE INDEX attempts_live ON attempts (machine, job, idx) WHERE state IN ('starting', 'running');
CREATE INDEX attempts_failed ON attempts (job, idx) WHERE latest = 1 AND state IN ('failed', 'timedout', 'cancelled');
CREATE INDEX attempts_ended ON attempts (ended) WHERE ended > 0;

CREATE TABLE events (
  rev INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX events_about ON events (kind, name, rev);

-- What is billed: the life of machines and the presence of users. stop 0: still running.
CREATE TABLE intervals (
  kind TEXT NOT NULL, id TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
  pool TEXT NOT NULL, machine TEXT NOT NULL, user TEXT NOT NULL, per_hour REAL NOT NULL, currency TEXT NOT NULL,
  PRIMARY KEY (kind, id, start)) WITHOUT ROWID;
CREATE INDEX intervals_open ON intervals (kind, id) WHERE stop = 0;
CREATE INDEX intervals_stop ON intervals (stop) WHERE stop > 0;

-- Credentials, beside the objects and never part of them.
CREATE TABLE passwords (user TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tokens (
  hash TEXT PRIMARY KEY, subject TEXT NOT NULL, kind TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE INDEX tokens_subject ON tokens (subject);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
