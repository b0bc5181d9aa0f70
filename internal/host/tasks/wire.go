package tasks

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// Runner and supervisor exchange lines of JSON over a Unix socket that is root's alone. They may be of
// different versions: fields are only ever added.

// Request is from Runner to supervisor. One field is set.
type Request struct {
	Start *StartRequest     `json:"start,omitempty"`
	Begin *shoal.AttemptRef `json:"begin,omitempty"` // one that was to get ready only
	Stop  *api.StopOrder    `json:"stop,omitempty"`
	// Lease is until when, by the clock that counts since the kernel's start, tasks may run that are not idempotent. ns.
	Lease time.Duration     `json:"lease,omitempty"`
	Drop  *shoal.AttemptRef `json:"drop,omitempty"` // a result that could not be written was received
	Quit  bool              `json:"quit,omitempty"` // if there is no task
}

// StartRequest is an order with what the runner knows besides.
type StartRequest struct {
	Order  api.TaskOrder `json:"order"`
	Person Person        `json:"person"`
	Mounts []string      `json:"mounts,omitempty"` // shares, for containers
	Spare  string        `json:"spare,omitempty"`  // a file to make the record of
}

// Event is from supervisor to Runner. The first is a Hello; then one field is set.
type Event struct {
	Hello   *Hello            `json:"hello,omitempty"`
	Started *StartedEvent     `json:"started,omitempty"`
	Ready   *shoal.AttemptRef `json:"ready,omitempty"` // it waits for its Begin
	Output  *OutputEvent      `json:"output,omitempty"`
	Ended   *EndedEvent       `json:"ended,omitempty"`
}

// Hello is all that a supervisor holds.
type Hello struct {
	PID   int          `json:"pid"`
	Live  []LiveTask   `json:"live,omitempty"`
	Ended []EndedEvent `json:"ended,omitempty"` // those that are not on disk
}

// LiveTask is a task that has not ended.
type LiveTask struct {
	Accepted
	Started time.Time `json:"started,omitzero"`
	Held    bool      `json:"held,omitempty"` // it waits for its Begin, or will
	Ready   bool      `json:"ready,omitempty"`
	Bytes   [2]int64  `json:"bytes"`
}

// StartedEvent says that a task runs.
type StartedEvent struct {
	Ref shoal.AttemptRef `json:"ref"`
	At  time.Time        `json:"at"`
}

// OutputEvent says how much a task has written.
type OutputEvent struct {
	Ref   shoal.AttemptRef `json:"ref"`
	Bytes [2]int64         `json:"bytes"`
}

// EndedEvent says how a task has ended.
type EndedEvent struct {
	Ref     shoal.AttemptRef `json:"ref"`
	Result  Result           `json:"result"`
	Unsaved bool             `json:"unsaved,omitempty"` // it is not on disk
}

// Settings are what a Runner starts a supervisor with.
type Settings struct {
	Dir    string          `json:"dir"`
	Places                 // in the same object
	Env    []string        `json:"env,omitempty"`
	Groups *cgroups.Config `json:"groups,omitempty"`
	GPUs   *GPUs           `json:"gpus,omitempty"`
	Idle   time.Duration   `json:"idle"` // ns
	Limit  int64           `json:"limit"`
}

// WriteLines writes each value as a line of JSON.
func WriteLines[T any](w io.Writer, lines []T) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
		if b.Len() > maxPiece {
			if _, err := b.WriteTo(w); err != nil {
				return err
			}
		}
	}
	_, err := b.WriteTo(w)
	return err
}

// maxPiece is how much is written at once, about.
const maxPiece = 32 << 10
