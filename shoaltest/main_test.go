package shoaltest_test

import (
	"os"
	"runtime"
	"testing"
)

// One thread runs Go at a time. Of the timers of a bubble, several threads may run some at once, and all do so in one context of the
// race detector, which then crashes now and then (Go 1.26's runtime/time.go: unlockAndRun and maybeRunChan use bubble.timers.raceCtx).
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}
