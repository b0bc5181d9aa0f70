package usage

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Interval is a stretch of time that is billed (a machine) or that says who was there (a session).
type Interval struct {
	Kind    shoal.ObjectKind // ObjectMachine or ObjectSession
	ID      string
	Pool    shoal.PoolName
	Machine shoal.MachineID
	User    shoal.UserName // of a session
	Start   time.Time
	End     time.Time // zero: still open
	Price   shoal.Price
}
