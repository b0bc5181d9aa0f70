package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// Scaling is one decision of the autoscaler: what it saw, by which rule or window, and what came of it.
type Scaling struct {
	At time.Time `json:"at"`

	Machines int     `json:"machines,omitempty"` // that run or start
	Running  int     `json:"running,omitempty"`  // of them, those that run: of these the figures below are
	Open     int     `json:"open,omitempty"`     // of them, those that take people and tasks, or will
	Sessions int     `json:"sessions,omitempty"` // that have a seat
	Waiting  int     `json:"waiting,omitempty"`
	Queue    int     `json:"queue,omitempty"`  // tasks that wait
	CPU      int     `json:"cpu,omitempty"`    // percent, on average of the machines
	Memory   int     `json:"memory,omitempty"` // likewise
	GPU      int     `json:"gpu,omitempty"`    // likewise
	SpentDay float64 `json:"spentDay,omitempty"`

	Window string `json:"window,omitempty"`
	Rule   string `json:"rule,omitempty"`

	Created  int            `json:"created,omitempty"`
	Retired  int            `json:"retired,omitempty"`
	Drained  int            `json:"drained,omitempty"`
	Restored int            `json:"restored,omitempty"`
	Reasons  []shoal.Reason `json:"reasons,omitempty"`
	Sentence string         `json:"sentence"`
}

// RehearsalRequest asks what the autoscaler would do, without doing it.
type RehearsalRequest struct {
	Pool  *shoal.Pool    `json:"pool,omitempty"`  // other settings for the pool; default: those it has
	Since shoal.Duration `json:"since,omitempty"` // how much of the past is gone through; default: a week
}

// Rehearsal is what the autoscaler would do now, and would have done.
type Rehearsal struct {
	Now          Scaling        `json:"now"`
	From         time.Time      `json:"from,omitzero"` // of what is on record
	MachineHours float64        `json:"machineHours"`  // that there would have been
	Was          float64        `json:"was"`           // that there were
	Most         int            `json:"most"`          // machines at a time
	Made         int            `json:"made"`          // machines, one after another
	Waits        int            `json:"waits"`         // logins that would have waited
	Waited       shoal.Duration `json:"waited"`        // all together
	WasMost      int            `json:"wasMost"`       // machines at a time that there were
	WasMade      int            `json:"wasMade"`       // machines that were started
	WasWaits     int            `json:"wasWaits"`      // logins that waited
	WasWaited    shoal.Duration `json:"wasWaited"`     // all together
	Metric       Rehearsed      `json:"metric"`        // by the load of the processors alone, as common autoscaling does it
	Fixed        int            `json:"fixed"`         // machines that have a seat for everybody at any time
	FixedHours   float64        `json:"fixedHours"`    // machine-hours, had there always been so many
}

// Rehearsed is what would have come of another policy.
type Rehearsed struct {
	MachineHours float64        `json:"machineHours"`
	Most         int            `json:"most"`
	Made         int            `json:"made"`
	Waits        int            `json:"waits"`
	Waited       shoal.Duration `json:"waited"`
	Ended        int            `json:"ended"`   // sessions that would have ended with their machines
	Crowded      float64        `json:"crowded"` // part of all session time on machines with more sessions than seats
}

// Acts reports whether the decision changed anything.
func (s Scaling) Acts() bool { return s.Created+s.Retired+s.Drained+s.Restored > 0 }
