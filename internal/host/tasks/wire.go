package tasks

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// Runner and supervisor exchange lines of JSON over a Unix socket that is root's alone. They may be of
// different versions: fields are only ever added.

// request is from Runner to supervisor. One field is set.
type request struct {
	Start *startRequest     `json:"start,omitempty"`
	Stop  *api.StopOrder    `json:"stop,omitempty"`
	Drop  *shoal.AttemptRef `json:"drop,omitempty"` // a result that could not be written was received
	Quit  bool              `json:"quit,omitempty"` // if there is no task
}

type startRequest struct {
	Order  api.TaskOrder `json:"order"`
	Person Person        `json:"person"`
}

// event is from supervisor to Runner. The first is a hello; then one field is set.
type event struct {
	Hello   *hello        `json:"hello,omitempty"`
	Started *startedEvent `json:"started,omitempty"`
	Output  *outputEvent  `json:"output,omitempty"`
	Ended   *endedEvent   `json:"ended,omitempty"`
}

// hello is all that a supervisor holds.
type hello struct {
	PID   int          `json:"pid"`
	Live  []liveTask   `json:"live,omitempty"`
	Ended []endedEvent `json:"ended,omitempty"` // those that are not on disk
}

type liveTask struct {
	accepted
	Started time.Time `json:"started,omitzero"`
	Bytes   [2]int64  `json:"bytes"`
}

type startedEvent struct {
	Ref shoal.AttemptRef `json:"ref"`
	At  time.Time        `json:"at"`
}

type outputEvent struct {
	Ref   shoal.AttemptRef `json:"ref"`
	Bytes [2]int64         `json:"bytes"`
}

type endedEvent struct {
	Ref     shoal.AttemptRef `json:"ref"`
	Result  result           `json:"result"`
	Unsaved bool             `json:"unsaved,omitempty"` // it is not on disk
}

// settings are what a Runner starts a supervisor with.
type settings struct {
	Dir     string          `json:"dir"`
	Scratch string          `json:"scratch"`
	Env     []string        `json:"env,omitempty"`
	Groups  *cgroups.Config `json:"groups,omitempty"`
	Idle    time.Duration   `json:"idle"` // ns
	Limit   int64           `json:"limit"`
}
