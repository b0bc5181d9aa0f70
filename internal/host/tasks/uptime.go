package tasks

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is what the clock says by which leases are counted.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// LeaseOver is the reason of what ended with the lease.
const LeaseOver = "the machine had no answer from the control plane for longer than the lease, and ended it"
