// Package pack writes attempts that ended as most do, many in a row, some twenty bytes each.
package pack

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Most tasks succeed at their first attempt, and of such an attempt there is little to be said: when,
// where, how much. A pack holds those of one job whose indexes are in one chunk, some twenty bytes each.
// What a pack cannot hold exactly stays a row of its own.
//
// A pack is: a version; how many; the user and the pool; the machines, each a name and an epoch; then for
// each attempt by rising index: the index after the one before, flags, the machine, when it was placed
// after the one before it, how long until it was started and then ended, and what it used.

// ChunkBits says how large a chunk is: 4096 indexes.
const ChunkBits = 12

const (
	version = 1

	exited     = 1 << 0 // its cause is exit
	backfilled = 1 << 1
)

// ChunkOf is the chunk in which an index lies.
func ChunkOf(index int) int { return index >> ChunkBits }

// place is a machine of a pack.
type place struct {
	machine shoal.MachineID
	epoch   int
}

// Write writes attempts of one job and chunk, by rising index. They are all ordinary.
func Write(all []shoal.Attempt) []byte {
	b := append(make([]byte, 0, 64+24*len(all)), version)
	b = binary.AppendUvarint(b, uint64(len(all)))
	b = appendText(appendText(b, string(all[0].User)), string(all[0].Pool))
	at := map[place]int{}
	var places []place
	for _, a := range all {
		p := place{a.Machine, a.Epoch}
		if _, ok := at[p]; !ok {
			at[p] = len(places)
			places = append(places, p)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(places)))
	for _, p := range places {
		b = binary.AppendVarint(appendText(b, string(p.machine)), int64(p.epoch))
	}
	index, placed := ChunkOf(all[0].Index)<<ChunkBits, int64(0)
	for _, a := range all {
		var flags byte
		if a.Cause == shoal.CauseExit {
			flags |= exited
		}
		if a.Backfilled {
			flags |= backfilled
		}
		b = append(binary.AppendUvarint(b, uint64(a.Index-index)), flags)
		index = a.Index
		b = binary.AppendUvarint(b, uint64(at[place{a.Machine, a.Epoch}]))
		b = binary.AppendVarint(b, Nanos(a.Placed)-placed)
		placed = Nanos(a.Placed)
		b = binary.AppendVarint(b, Nanos(a.Started)-placed)
		b = binary.AppendVarint(b, Nanos(a.Ended)-Nanos(a.Started))
		for _, n := range []int64{a.StdoutBytes, a.StderrBytes, int64(a.MaxMemory), int64(a.CPUTime)} {
			b = binary.AppendVarint(b, n)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads what Write wrote. After the first mistake it reads nothing but zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) text() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// Read reads the attempts of a pack with indexes from first on, by rising index, at most limit; a
// limit below 0 means all.
func Read(job shoal.JobID, chunk int, body []byte, first, limit int) ([]shoal.Attempt, error) {
	r := &reader{b: body}
	if r.byte() != version {
		r.fail()
	}
	count := r.uint()
	user, pool := shoal.UserName(r.text()), shoal.PoolName(r.text())
	machines := r.uint()
	if count > 1<<ChunkBits || machines > count {
		r.fail()
	}
	var places []place
	for i := uint64(0); i < machines && !r.bad; i++ {
		places = append(places, place{shoal.MachineID(r.text()), int(r.int())})
	}
	var all []shoal.Attempt
	index, placed := uint64(chunk)<<ChunkBits, int64(0)
	for i := uint64(0); i < count && !r.bad; i++ {
		index += r.uint()
		flags, at := r.byte(), r.uint()
		if at >= machines || ChunkOf(int(index)) != chunk { //nolint:gosec // what is too large is of another chunk
			r.fail()
			break
		}
		placed += r.int()
		started := placed + r.int()
		ended := started + r.int()
		out, errOut, memory, cpu := r.int(), r.int(), r.int(), r.int()
		if int(index) < first {
			continue
		}
		if limit >= 0 && len(all) >= limit {
			return all, nil
		}
		a := shoal.Attempt{User: user, Pool: pool, Machine: places[at].machine, Epoch: places[at].epoch, State: shoal.JobSucceeded, Backfilled: flags&backfilled != 0,
			Placed: Time(placed), Started: Time(started), Ended: Time(ended),
			StdoutBytes: out, StderrBytes: errOut, MaxMemory: shoal.Bytes(memory), CPUTime: shoal.Duration(cpu)}
		a.Job, a.Index, a.Attempt = job, int(index), 1
		if flags&exited != 0 {
			a.Cause = shoal.CauseExit
		}
		all = append(all, a)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("cannot read pack %d of job %s", chunk, job)
	}
	return all, nil
}

// Ordinary reports whether a pack can hold an attempt of a user in a pool.
func Ordinary(a, like shoal.Attempt) bool {
	if a.State != shoal.JobSucceeded || a.Attempt != 1 || a.Index < 0 || a.Ended.IsZero() || a.User != like.User || a.Pool != like.Pool {
		return false
	}
	again, err := Read(a.Job, ChunkOf(a.Index), Write([]shoal.Attempt{a}), a.Index, -1)
	return err == nil && same(again[0], a)
}

// same compares attempts whole.
func same(a, b shoal.Attempt) bool {
	if !a.Placed.Equal(b.Placed) || !a.Started.Equal(b.Started) || !a.Ended.Equal(b.Ended) || len(b.GPUs)+len(b.Members) > 0 || b.TruncatedAt != nil {
		return false
	}
	return a.AttemptRef == b.AttemptRef && a.User == b.User && a.Pool == b.Pool && a.Machine == b.Machine && a.Epoch == b.Epoch && a.State == b.State &&
		a.Cause == b.Cause && a.Reason == b.Reason && a.ExitCode == b.ExitCode && a.Signal == b.Signal && a.Failures == b.Failures &&
		a.StdoutBytes == b.StdoutBytes && a.StderrBytes == b.StderrBytes && a.MaxMemory == b.MaxMemory && a.CPUTime == b.CPUTime &&
		a.Memory == b.Memory && a.Backfilled == b.Backfilled && a.Release == b.Release
}

// Merge puts attempts of a chunk together, by index; of two of one index it takes the fresh one.
func Merge(old, fresh []shoal.Attempt) []shoal.Attempt {
	if len(old) == 0 {
		return fresh
	}
	all := append(slices.Clone(fresh), old...)
	slices.SortStableFunc(all, func(a, b shoal.Attempt) int { return a.Index - b.Index })
	return slices.CompactFunc(all, func(a, b shoal.Attempt) bool { return a.Index == b.Index })
}

// Nanos is a time in unix nanoseconds, as columns hold it; zero for none.
func Nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Time is what Nanos made of one.
func Time(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
