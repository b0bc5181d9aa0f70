package store

// PeopleMark tells one state of the users, groups and pools from another: two marks are equal only if none
// of them was added, changed or removed in between. It can be compared with ==.
type PeopleMark struct{ users, groups, pools mark }

// mark is the newest revision in a table and how many rows it has. A row that is written gets a revision
// above all before; so as long as the newest stays, rows can only have gone, and then they are fewer.
type mark struct{ newest, rows int64 }

// PeopleMark returns the mark of what the transaction sees. It reads two index entries a table, and their number.
func (tx *Tx) PeopleMark() (m PeopleMark, err error) {
	for _, t := range []struct {
		table string
		to    *mark
	}{{"users", &m.users}, {"user_groups", &m.groups}, {"pools", &m.pools}} {
		err = tx.query(func(rows Rows) error { return rows.Scan(&t.to.newest, &t.to.rows) },
			"SELECT coalesce(max(rev), 0), (SELECT count(*) FROM "+t.table+") FROM "+t.table)
		if err != nil {
			return m, err
		}
	}
	return m, nil
}
