-- The jobs that have not ended, in short: what is read of them all, at every start. What is in hot is
-- said in queue.go; shape is what does not change, the same text for most jobs of a user.
CREATE TABLE queue (job INTEGER PRIMARY KEY, hot BLOB NOT NULL, shape TEXT NOT NULL);
DROP INDEX jobs_active;

-- When a job ended, in unix nanoseconds; 0: it has not.
ALTER TABLE jobs ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_ended ON jobs (ended) WHERE ended > 0;
CREATE INDEX jobs_failed ON jobs (state, key) WHERE state IN ('failed', 'timedout', 'cancelled');

CREATE TABLE job_labels (user TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, job INTEGER NOT NULL,
  PRIMARY KEY (user, key, value, job)) WITHOUT ROWID;
CREATE INDEX job_labels_any ON job_labels (key, value, job);
CREATE INDEX job_labels_job ON job_labels (job);

-- The clients' own names of jobs. They outlive the jobs: a name leads to the same job for ever.
CREATE TABLE external_ids (user TEXT NOT NULL, external TEXT NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (user, external)) WITHOUT ROWID;
CREATE INDEX external_ids_any ON external_ids (external);

-- What the tasks of arrays work on, some at a time: those from position first on.
CREATE TABLE job_items (job INTEGER NOT NULL, first INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (job, first));

-- Attempts that ended as most do, many in a row: what is in body is said in package pack. There are size of
-- them; the first was placed at since, the last ended at until.
CREATE TABLE packs (job INTEGER NOT NULL, chunk INTEGER NOT NULL, until INTEGER NOT NULL, since INTEGER NOT NULL, size INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (job, chunk));
CREATE INDEX packs_until ON packs (until);
-- The machines of attempts that have several nodes and have not ended, but for the first, which is in attempts.
CREATE TABLE attempt_nodes (machine TEXT NOT NULL, job INTEGER NOT NULL, idx INTEGER NOT NULL, attempt INTEGER NOT NULL,
  PRIMARY KEY (machine, job, idx, attempt)) WITHOUT ROWID;
CREATE INDEX attempt_nodes_of ON attempt_nodes (job, idx, attempt);
-- Jobs whose attempts have not been packed since they ended.
CREATE TABLE unpacked (job INTEGER PRIMARY KEY);

-- What is left of jobs of long ago.
CREATE TABLE past_jobs (job INTEGER PRIMARY KEY, user TEXT NOT NULL, body TEXT NOT NULL);

-- Events about several jobs at once: those numbered from first to last.
CREATE TABLE event_ranges (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, rev INTEGER NOT NULL);
