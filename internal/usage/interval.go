package usage

import (
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// Interval is a stretch of time that is billed (a machine) or that says who was there: a session, or a task, of which that says only
// what its attempt does not, since the clock was put forward meanwhile.
type Interval struct {
	Kind    shoal.ObjectKind // ObjectMachine, ObjectSession or ObjectTask
	ID      string           // of a task: its job, a slash, and what tells it apart
	Pool    shoal.PoolName
	Machine shoal.MachineID
	User    shoal.UserName // of a session or a task
	Start   time.Time
	End     time.Time // zero: still open
	Price   shoal.Price
}

// job is whose task it is of; empty: none's.
func (i Interval) job() shoal.JobID {
	if i.Kind != shoal.ObjectTask {
		return ""
	}
	id, _, _ := strings.Cut(i.ID, "/")
	return shoal.JobID(id)
}
