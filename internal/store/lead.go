package store

// Lost is closed when another server has taken over: nothing can be stored any more. That happens only with a database
// that several servers may use.
func (db *DB) Lost() <-chan struct{} { return db.in.Lost() }

// Leads returns nil while no other server can have taken over, else why that is not certain: whoever does something in
// the world asks just before. It costs next to nothing.
func (db *DB) Leads() error { return db.in.Leads() }

// Epoch counts who leads, rising; 0 where only one process can use the database.
func (db *DB) Epoch() int64 { return db.in.Epoch() }
