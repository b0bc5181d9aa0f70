package commit

import (
	"fmt"
	"time"
)

// Epoch reads the epoch of who leads, or led last; 0 if nobody has.
func Epoch(c Conn) (epoch int64, err error) {
	err = c.Query(func(r Rows) error { return r.Scan(&epoch) }, "SELECT value FROM counters WHERE name = 'epoch'")
	return epoch, err
}

// NextEpoch takes the next epoch for who holds the right to write. It moves the revision on too, so that whoever led
// before notices with the first transaction that changes anything. Epochs are never below the time in seconds: they
// rise also where the database comes from a backup.
func NextEpoch(c Conn) (epoch int64, err error) {
	if err := c.Begin(true); err != nil {
		return 0, err
	}
	old, err := Epoch(c)
	if err != nil {
		return 0, fmt.Errorf("cannot take the lead: %w", err)
	}
	revs, err := readRevs(c)
	if err != nil {
		return 0, err
	}
	epoch = max(old+1, time.Now().Unix())
	if err := c.Do("INSERT INTO counters (name, value) VALUES ('epoch', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", epoch); err != nil {
		return 0, err
	}
	return epoch, c.Commit(revs.All, revs.All+1)
}
