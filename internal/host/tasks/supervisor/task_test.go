package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// What is spent on the preparation does not put the signal off: the limit has run meanwhile.
func TestUntilSignal(t *testing.T) {
	for _, c := range []struct{ limit, ahead, spent, want time.Duration }{
		{time.Hour, time.Minute, 0, 59 * time.Minute},
		{time.Hour, time.Minute, 10 * time.Minute, 49 * time.Minute},
		{time.Hour, time.Minute, 59*time.Minute + 30*time.Second, listenTime},
		{time.Minute, time.Hour, 0, listenTime},
	} {
		o := api.TaskOrder{TimeLimit: shoal.Duration(c.limit), SignalAhead: shoal.Duration(c.ahead)}
		if got := untilSignal(o, c.spent); got != c.want {
			t.Errorf("%v ahead of %v, of which %v are spent: in %v", c.ahead, c.limit, c.spent, got)
		}
	}
}

// A process that does not end when it is killed, since a file server holds it, is not waited for for ever.
func TestWithin(t *testing.T) {
	for _, ends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			gone, killed := make(chan exit, 1), false
			kill := func() {
				if killed = true; ends {
					gone <- exit{}
				}
			}
			if _, inTime := within(time.Minute, gone, kill); inTime || !killed {
				t.Errorf("in time is %v, killed is %v", inTime, killed)
			}
		})
	}
}
