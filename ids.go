package shoal

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
)

// Names of objects that people choose, and identifiers that Shoal makes.
// They are distinct types so that one cannot be handed over for another.
type (
	PoolName  string
	ShareName string
	UserName  string
	GroupName string
	MachineID string // "m-7f3kq2"
	SessionID string // "s-…"
	AppID     string // "a-…"
	JobID     string // decimal, counted up from 1 by the store
	EventID   = Rev
	// Rev is a point in the store's history. Every change has its own; larger is later.
	Rev int64
)

// idAlphabet is Crockford's base 32 in lower case: no i, l, o or u, so that an
// identifier read aloud or copied by hand stays the same.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// idLength gives 32^6, a billion names: enough for the machines and sessions of a
// site, short enough to type. The store refuses a duplicate and the caller draws again.
const idLength = 6

// NewMachineID draws a random machine identifier.
func NewMachineID() MachineID { return MachineID("m-" + randomID(idLength)) }

// NewSessionID draws a random session identifier.
func NewSessionID() SessionID { return SessionID("s-" + randomID(idLength)) }

// NewAppID draws a random identifier of an app.
func NewAppID() AppID { return AppID("a-" + randomID(idLength)) }

// NewToken draws a bearer token with 160 random bits.
func NewToken() string { return randomID(32) }

func randomID(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	for i := range b {
		b[i] = idAlphabet[b[i]%32]
	}
	return string(b)
}

// TaskRef names one task of a job: "17/3". The single task of a plain job is "17/0".
type TaskRef struct {
	Job   JobID `json:"job"`
	Index int   `json:"index"`
}

func (t TaskRef) String() string { return fmt.Sprintf("%s/%d", t.Job, t.Index) }

// AttemptRef names one attempt of a task: "17/3#2". Attempts count from 1 and only grow;
// the number is the fence by which an older attempt is told from the current one.
type AttemptRef struct {
	TaskRef
	Attempt int `json:"attempt"`
}

func (a AttemptRef) String() string { return fmt.Sprintf("%s#%d", a.TaskRef, a.Attempt) }

// ParseTaskRef reads "17/3", or "17", whose index is -1.
func ParseTaskRef(s string) (TaskRef, error) {
	job, index, found := strings.Cut(s, "/")
	if _, err := strconv.ParseUint(job, 10, 63); err != nil {
		return TaskRef{}, Errorf(KindInvalid, "cannot read %q as a job", s).
			WithHint("a job is named by its number, a task of it by NUMBER/INDEX; `shoal job list` shows them")
	}
	ref := TaskRef{Job: JobID(job), Index: -1}
	if !found {
		return ref, nil
	}
	n, err := strconv.ParseUint(index, 10, 31)
	if err != nil {
		return TaskRef{}, Errorf(KindInvalid, "cannot read %q as a task of job %s", index, job).
			WithHint("an index is a number, as in %s/3", job)
	}
	ref.Index = int(n)
	return ref, nil
}
