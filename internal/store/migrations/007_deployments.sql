-- What was made of templates, by name, without secrets.
CREATE TABLE deployments (name TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL);
