// Package activity sees who has what on a machine, from /proc and the terminals.
//
// A user's processes are judged by the trees that they form. What hangs below the sshd of a live connection of
// hers is that connection, and ends with it or turns up later on its own. What belongs to her tasks is told by
// whoever runs them, and so is that she has a web app, of which only notebooks' kernels and terminals count. Of the rest
// each tree is one pin, whose kind its first process gives: tmux, shell, process; notebooks' kernels are counted
// one by one. A remote desktop is one, with all that runs in it, whether anybody looks at it or not. Leftovers are
// nothing: programs that sessions leave behind, such as ssh-agent, are looked through, so that what they have started
// counts for itself. An editor's server is a leftover once its user has not been connected for ten minutes, unless
// something runs in one of its terminals. Whatever uses the processor is a pin, if nothing else is.
//
// Apart from what is there, it is told what is in use. A program is, and a notebook's kernel unless its server says that it waits; a shell that asks what to do next, what holds or
// shows terminals, the servers of editors and of notebooks, and a connection only wait for their user, who uses them by typing. How
// long nothing of hers has been in use is counted here, by a clock that nobody sets.
//
// One look reads one or two short files of each process and costs about 25 µs of the processor for each.
package activity

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// clientless is how long an editor's server pins without a client.
const clientless = 10 * time.Minute

// Config is how a Watcher is set up.
type Config struct {
	// Name tells whose a uid is; false: not a user's, left out.
	Name func(uid int) (shoal.UserName, bool)
	// Tasks counts users' running tasks; nil: none.
	Tasks func() map[shoal.UserName]int
	// GPUs reports whether somebody's work is on a GPU of the machine; nil: it has none. Whose, a machine that is a container
	// cannot see: a notebook's kernel in an editor's server may be at it, which then is no leftover.
	GPUs func() bool

	proc, pts    string // for tests
	kernelsEvery time.Duration
}

// Watcher looks at the machine it runs on. Its methods may be called concurrently.
type Watcher struct {
	cfg Config

	mu        sync.Mutex
	at        time.Time // of the look before
	used      map[process]uint64
	connected map[int]time.Time // when a user was last seen connected, or first seen at all
	uses      map[int]*use
	kernels   map[string]kernelUse // by the names that their servers give them
	asked     time.Time            // when these were asked last
	asking    bool
}

// process names one process for ever: its number may be used anew.
type process struct {
	pid  int
	born uint64
}

// New makes a Watcher.
func New(cfg Config) *Watcher {
	if cfg.proc == "" {
		cfg.proc, cfg.pts = "/proc", "/dev/pts"
	}
	if cfg.kernelsEvery == 0 {
		cfg.kernelsEvery = kernelsEvery
	}
	return &Watcher{cfg: cfg, connected: map[int]time.Time{}, uses: map[int]*use{}}
}

// Look looks at all processes once. It lists users with a connection or a pin.
func (w *Watcher) Look() (api.Activity, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	procs, found, err := w.find(now)
	if err != nil {
		return api.Activity{}, err
	}
	cpu := w.cpu(procs, now)
	input := w.input()
	var tasks map[shoal.UserName]int
	if w.cfg.Tasks != nil {
		tasks = maps.Clone(w.cfg.Tasks())
	}
	var out api.Activity
	for uid, f := range found {
		name, _ := w.cfg.Name(uid)
		u := api.UserActivity{User: name, Connections: f.connections, LastInput: input[uid], CPUPercent: cpu[uid]}
		u.InUse, u.Unused = w.judgeUse(uid, f, input[uid], now)
		if n := tasks[name]; n > 0 {
			f.pins["task"] = n
			delete(tasks, name)
		}
		for _, kind := range slices.Sorted(maps.Keys(f.pins)) {
			u.Pins = append(u.Pins, shoal.Pin{Kind: kind, Count: f.pins[kind]})
		}
		if u.Connections > 0 || len(u.Pins) > 0 {
			out.Users = append(out.Users, u)
		}
	}
	for name, n := range tasks { // that have no process at this moment
		if n > 0 && name != "" {
			out.Users = append(out.Users, api.UserActivity{User: name, Pins: []shoal.Pin{{Kind: "task", Count: n}}})
		}
	}
	slices.SortFunc(out.Users, func(a, b api.UserActivity) int { return strings.Compare(string(a.User), string(b.User)) })
	return out, nil
}

// find reads all processes and judges what each user has. The caller holds the lock.
func (w *Watcher) find(now time.Time) ([]proc, map[int]*found, error) {
	procs, err := w.scan()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot see who is on the machine: %w", err)
	}
	w.markKernels(procs, now)
	all := judge(procs, func(uid int) bool {
		_, ok := w.cfg.Name(uid)
		return ok
	}, func(uid int, connections int) bool {
		last, known := w.connected[uid]
		if connections > 0 || !known {
			last = now
			w.connected[uid] = now
		}
		return now.Sub(last) < clientless || w.gpus()
	})
	maps.DeleteFunc(w.connected, func(uid int, _ time.Time) bool { return all[uid] == nil })
	maps.DeleteFunc(w.uses, func(uid int, _ *use) bool { return all[uid] == nil })
	return procs, all, nil
}

func (w *Watcher) gpus() bool { return w.cfg.GPUs != nil && w.cfg.GPUs() }

// ticks is how many of the kernel's ticks are a second, as programs see them on Linux.
const ticks = 100

// cpu is what each user's processes have used of one processor since the look before, in percent.
func (w *Watcher) cpu(procs []proc, now time.Time) map[int]int {
	used := make(map[process]uint64, len(procs))
	sum := map[int]uint64{}
	for _, p := range procs {
		if _, ok := w.cfg.Name(p.uid); !ok {
			continue
		}
		id := process{p.pid, p.born}
		used[id] = p.used
		if before, ok := w.used[id]; !ok || p.used >= before {
			sum[p.uid] += p.used - before
		}
	}
	out := map[int]int{}
	if elapsed := now.Sub(w.at); !w.at.IsZero() && elapsed > 0 {
		for uid, n := range sum {
			out[uid] = int(float64(n) / ticks / elapsed.Seconds() * 100)
		}
	}
	w.at, w.used = now, used
	return out
}

// input is when each user last typed something. The kernel notes it, to some seconds, as the time of access.
func (w *Watcher) input() map[int]time.Time {
	out := map[int]time.Time{}
	for _, t := range w.terminals() {
		if at := time.Unix(t.st.Atim.Unix()); at.After(out[int(t.st.Uid)]) {
			out[int(t.st.Uid)] = at
		}
	}
	return out
}

type terminal struct {
	path string
	st   unix.Stat_t
}

// terminals lists the pseudo terminals of users.
func (w *Watcher) terminals() []terminal {
	entries, err := os.ReadDir(w.cfg.pts)
	if err != nil {
		return nil // a machine without terminals
	}
	var out []terminal
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		t := terminal{path: w.cfg.pts + "/" + e.Name()}
		if unix.Stat(t.path, &t.st) != nil {
			continue // closed meanwhile
		}
		if _, ok := w.cfg.Name(int(t.st.Uid)); ok {
			out = append(out, t)
		}
	}
	return out
}
