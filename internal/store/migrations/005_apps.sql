-- Users' web apps. Few live at a time; those that ended go with the other history.
CREATE TABLE apps (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL,
  pool TEXT NOT NULL, machine TEXT NOT NULL, user TEXT NOT NULL, state TEXT NOT NULL);
CREATE UNIQUE INDEX apps_created ON apps (created_rev);
CREATE INDEX apps_user ON apps (user, created_rev);
CREATE INDEX apps_live ON apps (machine) WHERE state NOT IN ('ended', 'failed');
-- What a machine is told of an app: an api.AppOrder. Its command and variables, which may be secret, go as soon as the machine has them.
CREATE TABLE app_orders (app TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
