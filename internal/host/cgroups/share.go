package cgroups

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Shares divides the machine's processors among its users. Equal weights alone do not: processes of one user that are
// many are on all processors, and a single one of another's is on one. Where a machine may use less than its host has, what it may
// use is spent on all of them at once; one busy process against a hundred gets a sixteenth of a machine on a host with sixteen.
// So who is below an equal part weighs more and more. While the machine uses all it may, who is above it is
// bounded by what the others leave, and a little less, which they take if they want more.
//
// The zero Shares is ready. It is for one goroutine.
type Shares struct {
	at    time.Time
	total time.Duration
	used  map[string]time.Duration
	small int64 // what those who are not bounded used lately, in thousandths of a processor
	slack int64 // what is left to them beyond that
}

// Divide looks at what was used since the last time, and bounds those who use too much. cpus is what the machine may use;
// zero: unknown, and nobody is bounded. It reports whether it is worth looking soon again: several users are at work, or some
// are bounded or weigh more than others.
func (s *Shares) Divide(t *Tree, cpus shoal.MilliCPU, now time.Time) (soon bool, err error) {
	if t == nil {
		return false, nil
	}
	for _, h := range t.hierarchies {
		if h.has("cpu") {
			return s.divide(t, h, int64(cpus), now)
		}
	}
	return false, nil
}

func (s *Shares) divide(t *Tree, h hierarchy, cpus int64, now time.Time) (bool, error) {
	dirs, err := filepath.Glob(filepath.Join(h.dir, "u[0-9]*"))
	if err != nil {
		return false, err
	}
	passed := now.Sub(s.at)
	milli := func(was, is time.Duration) int64 { return max(int64(1000*float64(is-was)/float64(passed)), 0) }
	total, used, all := t.spent(""), map[string]time.Duration{}, make([]share, len(dirs))
	machine := cpus - milli(s.total, total)
	for i, dir := range dirs {
		name := filepath.Base(dir)
		used[name] = t.spent(name)
		was, known := s.used[name]
		if !known {
			was = used[name]
		}
		all[i] = share{used: milli(was, used[name]), limit: h.bound(dir), weight: h.weightOf(dir)}
		machine += all[i].used
	}
	fresh := s.at.IsZero() || passed <= 0 || cpus <= 0
	s.at, s.total, s.used = now, total, used
	limits := make([]int64, len(dirs))
	if !fresh {
		limits, s.small, s.slack = divide(min(machine, cpus), all, s.small, s.slack)
	}
	var failed error
	weights, soon := weigh(max(cpus, 0), all)
	for i, weighs := range weights {
		var do []setting
		soon = soon || limits[i] > 0
		if limits[i] != all[i].limit {
			do = append(do, h.boundTo(limits[i]))
		}
		if weighs != all[i].weight {
			do = append(do, weight(h, weighs)...)
		}
		// Who has just left needs nothing.
		if err := h.set(dirs[i], do); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			failed = errors.Join(failed, fmt.Errorf("cannot share the processors: %w", err))
		}
	}
	return soon, failed
}

// share is what a user has used lately, and may, in thousandths of a processor; 0 is no bound. The weight is in the same.
type share struct{ used, limit, weight int64 }

// The weights of slices.
const (
	sliceWeight = 1000
	mostWeight  = 16 * sliceWeight
)

// atWork counts the users who use anything worth mentioning, and what all use.
func atWork(machine int64, all []share) (users, sum int64) {
	for _, s := range all {
		if sum += s.used; s.busy(machine) {
			users++
		}
	}
	return users, sum
}

func (s share) busy(machine int64) bool { return s.used >= max(machine/100, 1) }

// weigh says what users weigh: more and more while they are below an equal part of what is used. Who has to go weighs
// least, and goes on to. several: so many are at work that it may be different soon.
func weigh(machine int64, all []share) (weights []int64, several bool) {
	busy, sum := atWork(machine, all)
	weights = make([]int64, len(all))
	for i, s := range all {
		part := sum / max(busy, 1)
		switch {
		case s.weight < sliceWeight/2:
			weights[i] = s.weight
		case busy < 2 || !s.busy(machine) || s.used > part*6/5:
			weights[i] = sliceWeight
		case s.used < part*97/100:
			weights[i] = min(s.weight*5/4, mostWeight)
		case s.used > part*103/100:
			weights[i] = max(s.weight*4/5, sliceWeight)
		default:
			weights[i] = s.weight
		}
	}
	return weights, busy > 1
}

// pressing reports whether a bound holds.
func (s share) pressing() bool { return s.limit > 0 && s.used >= s.limit*9/10 }

// divide says how each user of a machine is bounded. small and slack are what it returned the last time.
func divide(machine int64, all []share, small, slack int64) (limits []int64, nowSmall, nowSlack int64) {
	limits = make([]int64, len(all))
	busy, sum := atWork(machine, all)
	pressing := slices.ContainsFunc(all, share.pressing)
	if busy < 2 || sum < machine*9/10 && !pressing {
		return limits, 0, 0
	}
	part := machine / busy
	large := int64(0)
	for i, s := range all {
		if s.used > part*21/20 || s.pressing() {
			limits[i] = 1
			large++
		} else {
			nowSmall += s.used
		}
	}
	if large == 0 {
		return limits, 0, 0
	}
	// They took most of what was left to them: they want more.
	switch {
	case slack == 0:
		slack = machine / 10
	case nowSmall-small > slack/2:
		slack = min(2*slack, machine/4)
	default:
		slack = max(slack/2, machine/50)
	}
	bound := max((machine-nowSmall-slack)/large, part)
	for i := range limits {
		limits[i] *= bound
	}
	return limits, nowSmall, slack
}

// spent is the processor time that a slice has used; "": the machine.
func (t *Tree) spent(name string) time.Duration {
	for _, h := range t.hierarchies {
		in := func(file string) string { return read(filepath.Join(h.dir, name, file)) }
		if used, ok := h.spent(in); ok {
			return used
		}
	}
	return 0
}

// boundPeriod is the kernel's default, in microseconds. It takes no bound of less than a millisecond.
const boundPeriod = 100_000

// boundTo bounds a group.
func (h hierarchy) boundTo(milli int64) setting {
	quota := strconv.FormatInt(max(milli*boundPeriod/1000, 1000), 10)
	switch {
	case h.v2 && milli == 0:
		quota = "max"
	case milli == 0:
		quota = "-1"
	}
	if h.v2 {
		return setting{file: "cpu.max", value: quota}
	}
	return setting{file: "cpu.cfs_quota_us", value: quota}
}

// bound is how a group is bounded.
func (h hierarchy) bound(dir string) int64 {
	quota, _, _ := strings.Cut(read(filepath.Join(dir, h.boundTo(0).file)), " ") // "max" and -1 are none
	return max(number(quota)*1000/boundPeriod, 0)
}

// weightOf is what a group weighs, as weight writes it.
func (h hierarchy) weightOf(dir string) int64 {
	if h.v2 {
		return number(read(filepath.Join(dir, "cpu.weight"))) * 10
	}
	return (number(read(filepath.Join(dir, "cpu.shares")))*1000 + 1023) / 1024
}
