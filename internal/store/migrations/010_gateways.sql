-- Gateways that are processes of their own.
CREATE TABLE gateways (key TEXT PRIMARY KEY, rev INTEGER NOT NULL, created_rev INTEGER NOT NULL, body TEXT NOT NULL);
