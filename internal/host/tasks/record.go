package tasks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Endings of the files of an attempt.
const (
	RecordFile = ".rec"
	AckFile    = ".ack"
)

// Streams are the names of a task's two outputs.
func Streams() [2]string { return [2]string{"stdout", "stderr"} }

// Endings are those of the files that a task's two outputs are in.
func Endings() [2]string { return [2]string{".out", ".err"} }

// Line is one line of a record. One field is set.
type Line struct {
	Accepted *Accepted `json:"accepted,omitempty"`
	Started  *Started  `json:"started,omitempty"`
	Ended    *Result   `json:"ended,omitempty"`
}

// Accepted says that an attempt is ours, whether or not it ever starts.
type Accepted struct {
	Ref  shoal.AttemptRef `json:"ref"`
	User shoal.UserName   `json:"user"`
	UID  int              `json:"uid"`
	// Group is the control group that the attempt has; empty: one of its own name, or none.
	Group string `json:"group,omitempty"`
	// Scratch is the name of its scratch directory; empty: its own name.
	Scratch string `json:"scratch,omitempty"`
}

// Started says that an attempt's first process runs.
type Started struct {
	PID  int       `json:"pid"`
	Born uint64    `json:"born"` // as the kernel counts; with PID it names one process
	At   time.Time `json:"at"`
	Held bool      `json:"held,omitempty"` // the attempt gets ready only; another line follows when it begins
}

// Result is how an attempt ended.
type Result struct {
	State     shoal.JobState `json:"state"`
	Cause     shoal.Cause    `json:"cause,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	ExitCode  int            `json:"exitCode,omitempty"`
	Signal    int            `json:"signal,omitempty"`
	Started   time.Time      `json:"started,omitzero"`
	Ended     time.Time      `json:"ended,omitzero"`
	Bytes     [2]int64       `json:"bytes"`
	MaxMemory shoal.Bytes    `json:"maxMemory,omitempty"`
	CPUTime   time.Duration  `json:"cpuTime,omitempty"` // ns
}

// Report is what the control plane is told.
func (e Result) Report(ref shoal.AttemptRef) api.TaskReport {
	return api.TaskReport{Ref: ref, State: e.State, Cause: e.Cause, Reason: e.Reason, ExitCode: e.ExitCode, Signal: e.Signal,
		Started: e.Started, Ended: e.Ended, StdoutBytes: e.Bytes[0], StderrBytes: e.Bytes[1], MaxMemory: e.MaxMemory,
		CPUTime: shoal.Duration(e.CPUTime)}
}

// Record is what a record file says.
type Record struct {
	Accepted
	Started *Started
	Ended   *Result
}

// maxReason keeps a record within the block that its first line has taken.
const maxReason = 1000

// ParseRecord reads a record. A line that was cut off counts as not written. A record without its first
// line is an error.
func ParseRecord(b []byte) (Record, error) {
	var r Record
	found := false
	for {
		l, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			break
		}
		b = rest
		var x Line
		if json.Unmarshal(l, &x) != nil {
			continue // torn: whoever goes on with a record begins a line
		}
		switch {
		case x.Accepted != nil:
			r.Accepted, found = *x.Accepted, true
		case x.Started != nil:
			r.Started = x.Started
		case x.Ended != nil && x.Ended.State.Ended() && KnownState(x.Ended.State):
			if r.Ended == nil { // the first end is the end
				r.Ended = x.Ended
				r.Ended.Bytes = [2]int64{max(x.Ended.Bytes[0], 0), max(x.Ended.Bytes[1], 0)}
			}
		}
	}
	if !found {
		return r, errors.New("the record does not say whose it is")
	}
	return r, nil
}

// KnownState reports whether a state is one that an attempt can end in.
func KnownState(s shoal.JobState) bool {
	switch s {
	case shoal.JobSucceeded, shoal.JobFailed, shoal.JobCancelled, shoal.JobTimedOut, shoal.JobLost, shoal.JobPreempted:
		return true
	}
	return false
}

// FileName is the name of an attempt's files and of its control group, without ending.
func FileName(ref shoal.AttemptRef) (string, error) {
	id := string(ref.Job)
	ok := id != "" && len(id) <= 64
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-')
	}
	if !ok || ref.Attempt < 0 { // a release has an index below zero
		return "", shoal.Errorf(shoal.KindInvalid, "cannot run an attempt named %q", ref.String())
	}
	return id + "." + strconv.Itoa(ref.Index) + "." + strconv.Itoa(ref.Attempt), nil
}

// ParseName undoes FileName.
func ParseName(name string) (shoal.AttemptRef, bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return shoal.AttemptRef{}, false
	}
	index, err1 := strconv.Atoi(parts[1])
	attempt, err2 := strconv.Atoi(parts[2])
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: shoal.JobID(parts[0]), Index: index}, Attempt: attempt}
	same, err3 := FileName(ref)
	return ref, err1 == nil && err2 == nil && err3 == nil && same == name
}

// ReadRecord reads the record of an attempt; fs.ErrNotExist says that it was never accepted.
func ReadRecord(dir, name string) (Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, name+RecordFile))
	if err != nil {
		return Record{}, err
	}
	r, err := ParseRecord(b)
	if err == nil {
		var same string
		if same, err = FileName(r.Ref); err == nil && same != name {
			err = fmt.Errorf("it speaks of attempt %s", r.Ref)
		}
	}
	if err != nil {
		return r, fmt.Errorf("cannot use record %s: %w", name, err)
	}
	return r, nil
}

// Recorder appends to a record.
type Recorder struct {
	fd int
	at int64
}

// NewRecord begins a record with its first line; if there is one already the error is fs.ErrExist: an attempt starts
// once. spare is the name of one that nobody needs any more, to be made use of, since to make and remove a file costs a
// file system ten times as much as to name it anew; empty: none.
func NewRecord(dir, name, spare string, first Line) (*Recorder, error) {
	b, err := first.bytes()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+RecordFile)
	if spare != "" {
		r, err := reuse(filepath.Join(dir, spare), path, b)
		if err == nil || errors.Is(err, unix.EEXIST) {
			return r, err
		}
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	r := &Recorder{fd: fd}
	if err := r.write(b); err != nil {
		r.Close()
		return nil, errors.Join(err, unix.Unlink(path)) // what does not say whose it is would be taken for a torn one
	}
	return r, nil
}

// reuse makes a record out of a spare file. What that held is written over before it gets its name.
func reuse(spare, path string, first []byte) (*Recorder, error) {
	fd, err := unix.Open(spare, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r := &Recorder{fd: fd}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		text := append([]byte{}, first...)
		for int64(len(text)) < st.Size {
			text = append(text, '\n')
		}
		if err = r.write(text); err == nil {
			err = unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		}
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	r.at = int64(len(first))
	return r, nil
}

// GoOn appends to a record that is there, perhaps.
func GoOn(dir, name string) (*Recorder, error) {
	fd, err := unix.Open(filepath.Join(dir, name+RecordFile), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	r := &Recorder{fd: fd}
	if r.at, err = unix.Seek(fd, 0, io.SeekEnd); err != nil {
		r.Close()
		return nil, err
	}
	_ = r.write([]byte("\n")) // ends a line that was cut off; if it cannot be written, nor can what follows
	return r, nil
}

// Write appends a line.
func (r *Recorder) Write(l Line) error {
	b, err := l.bytes()
	if err != nil {
		return err
	}
	return r.write(b)
}

func (r *Recorder) write(b []byte) error {
	n, err := unix.Pwrite(r.fd, b, r.at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		r.at += int64(n)
	}
	return err
}

// bytes is the line as it is written.
func (l Line) bytes() ([]byte, error) {
	if l.Ended != nil && len(l.Ended.Reason) > maxReason {
		short := *l.Ended
		short.Reason = strings.ToValidUTF8(short.Reason[:maxReason], "") + "…"
		l.Ended = &short
	}
	b, err := json.Marshal(l)
	return append(b, '\n'), err
}

// Close lets go of the file.
func (r *Recorder) Close() { _ = unix.Close(r.fd) }

// Sizes are those of the files with an attempt's output.
func Sizes(dir, name string) (out [2]int64) {
	for i, e := range Endings() {
		if fi, err := os.Lstat(filepath.Join(dir, name+e)); err == nil {
			out[i] = fi.Size()
		}
	}
	return out
}

// ParseAck reads how much was acknowledged of both streams; what makes no sense is nothing.
func ParseAck(b []byte) (out [2]int64) {
	f := strings.Fields(string(b))
	if len(f) != 2 || !bytes.HasSuffix(b, []byte("\n")) {
		return out
	}
	for i, s := range f {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return [2]int64{}
		}
		out[i] = n
	}
	return out
}
