-- So that whoever follows users, groups and pools finds out for next to nothing that none has changed.
CREATE INDEX pools_rev ON pools (rev);
CREATE INDEX users_rev ON users (rev);
CREATE INDEX user_groups_rev ON user_groups (rev);
