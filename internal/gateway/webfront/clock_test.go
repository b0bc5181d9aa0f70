package webfront

import (
	"net"
	"testing"
	"time"
)

// quiet is a connection that takes everything.
type quiet struct{ net.Conn }

func (quiet) Write(b []byte) (int, error)      { return len(b), nil }
func (quiet) SetWriteDeadline(time.Time) error { return nil }

// What is done now and then is counted from when a connection was made, not by the wall clock: when that is put back, a deadline
// would not be moved on, and nobody be asked whether she is still signed in, until it has caught up.
func TestClock(t *testing.T) {
	t.Parallel()
	c := &client{Conn: quiet{}, made: time.Now()}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if until := time.Duration(c.until.Load()); until < writeTime || until > time.Hour {
		t.Errorf("the deadline is %s after the connection was made", until)
	}
	w := &tunnel{opened: time.Now(), still: func() bool { return true }, used: func(time.Time) {}, busy: func(time.Time) {}}
	later := w.opened.Add(askAgain)
	if question := w.see(later, []byte("x")); question == nil || !question() {
		t.Error("it was not asked whether she is still signed in")
	}
	if asked, told := time.Duration(w.asked.Load()), time.Duration(w.told.Load()); asked != askAgain || told != askAgain {
		t.Errorf("asked %s and told %s after it was opened", asked, told)
	}
}
