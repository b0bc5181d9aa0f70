package api

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// MaxBatch is how many jobs one request may submit, ask about or cancel.
const MaxBatch = 10_000

// BatchRequest submits many jobs: POST /api/v1/jobs:batch. Each is taken or refused by itself. A job
// with an externalId that its user has used before is the job of that time.
type BatchRequest struct {
	Jobs []shoal.JobSpec `json:"jobs"`
	// AllOrNothing takes none if one is refused.
	AllOrNothing bool `json:"allOrNothing,omitempty"`
}

// BatchResult says what became of each job, in the order given. What it says is stored is on disk.
type BatchResult struct {
	Items []BatchItem `json:"items"`
}

// BatchItem is one job of a batch: its number, or why it was refused.
type BatchItem struct {
	ID         shoal.JobID `json:"id,omitempty"`
	ExternalID string      `json:"externalId,omitempty"`
	Existing   bool        `json:"existing,omitempty"` // it was submitted before
	Problem    *Problem    `json:"problem,omitempty"`
}

// StatusRequest asks about many jobs: POST /api/v1/jobs:status. With Rev only those that changed
// after it are answered, and those that are unknown. Either IDs and ExternalIDs are given, or Label.
type StatusRequest struct {
	IDs         []shoal.JobID `json:"ids,omitempty"`
	ExternalIDs []string      `json:"externalIds,omitempty"`
	Label       string        `json:"label,omitempty"` // key=value: all the caller's jobs that carry it
	Rev         shoal.Rev     `json:"rev,omitempty"`
	Cursor      string        `json:"cursor,omitempty"` // the Next of the answer before
}

// StatusResult answers for every job that was asked about, also for those that ended long ago.
type StatusResult struct {
	Items []JobStatus `json:"items"`
	Rev   shoal.Rev   `json:"rev"`            // to be given with the next question
	Next  string      `json:"next,omitempty"` // there may be more that carry the label
}

// JobStatus is a job in short.
type JobStatus struct {
	ID         shoal.JobID    `json:"id,omitempty"`
	ExternalID string         `json:"externalId,omitempty"`
	Name       string         `json:"name,omitempty"`
	Unknown    bool           `json:"unknown,omitempty"` // the caller has no such job, and had none
	State      shoal.JobState `json:"state,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	ExitCode   int            `json:"exitCode"` // as of `shoal job wait`; meaningful when ended
	// What follows is of the task that decides once the job has ended: the only one, or the first that
	// did not succeed.
	Signal    int            `json:"signal,omitempty"`
	Cause     shoal.Cause    `json:"cause,omitempty"`
	Attempts  int            `json:"attempts,omitempty"`
	MaxMemory shoal.Bytes    `json:"maxMemory,omitempty"`
	CPUTime   shoal.Duration `json:"cpuTime,omitempty"`

	Counts    shoal.Counts `json:"counts"`
	Submitted time.Time    `json:"submitted,omitzero"`
	Started   time.Time    `json:"started,omitzero"`
	Ended     time.Time    `json:"ended,omitzero"`
	Rev       shoal.Rev    `json:"rev,omitempty"`
}

// CancelRequest ends many jobs: POST /api/v1/jobs:cancel.
type CancelRequest struct {
	IDs         []shoal.JobID `json:"ids,omitempty"`
	ExternalIDs []string      `json:"externalIds,omitempty"`
	Label       string        `json:"label,omitempty"` // key=value
}

// CancelResult lists the jobs by what was found: ended before, or being ended now.
type CancelResult struct {
	Cancelled []shoal.JobID `json:"cancelled,omitempty"`
	Over      []shoal.JobID `json:"over,omitempty"`
	Refused   []shoal.JobID `json:"refused,omitempty"` // the caller may see, but not end them
	Unknown   []string      `json:"unknown,omitempty"`
}

// CancelTasks ends some of a job's tasks: POST /api/v1/jobs/{id}/cancel. Without any the whole job ends.
type CancelTasks struct {
	Tasks string `json:"tasks,omitempty"` // indexes in the form of an array, "1-3,7"
}

// RetryRequest starts tasks of an ended job again: POST /api/v1/jobs/{id}/retry.
type RetryRequest struct {
	// Tasks are indexes in the form of an array, "1-3,7"; empty: all that did not succeed.
	Tasks string `json:"tasks,omitempty"`
}

// JobFile is a file or directory in one of a job's outputs.
type JobFile struct {
	Output   string    `json:"output"` // name of the output
	Path     string    `json:"path"`   // below it
	Dir      bool      `json:"dir,omitempty"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
}
