package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/network"
	"github.com/shoal-pool/shoal/provider"
)

// want is what should become of a machine.
type want string

const (
	wantRun    want = "run"
	wantStop   want = "stop"
	wantRemove want = "remove"
)

// record is what is on disk of a machine, written before anything is done about it.
type record struct {
	Spec provider.MachineSpec
	Want want
	// Starts counts how often it was asked to run. A run answers one of them, so that a machine whose
	// run has ended is not started again unless that is asked for.
	Starts int
	Host   network.Host
	GPUs   []string // device nodes of the host's GPUs that are the machine's own while it runs
	Root   string   // the lower of the last start
	State  string   // the state of the host's software at the last start, if the image is the host
	// Homes are the directories of users that the machine has beside its mounts.
	Homes  []provider.HomeMount `json:",omitempty"`
	Failed string               // why the last start failed for good
}

// run is a started machine: a process, told from a later one of the same number by its start time.
type run struct {
	Starts    int
	PID       int
	StartTime uint64
}

// writeJSON replaces a file whole. It does not wait for the disk: after a power cut no machine
// runs, and a record that is cut off is removed with what belongs to it.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// load reads the machines of the directory. What has no record, or one that is cut off, is removed later, as a stray; one that
// cannot be read otherwise may be of a machine that runs, and is an error.
func (p *Provider) load() ([]network.Host, error) {
	entries, err := os.ReadDir(p.path("machines"))
	if err != nil {
		return nil, err
	}
	var hosts []network.Host
	for _, e := range entries {
		m := &machine{dir: p.path("machines", e.Name()), pidfd: -1}
		err := readJSON(filepath.Join(m.dir, "spec.json"), &m.rec)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !cutOff(err) {
			return nil, shoal.Errorf(shoal.KindUnavailable, "cannot read the record of machine %s: %w", e.Name(), err).
				WithHint("if nobody needs that machine, remove %s", m.dir)
		}
		if err != nil || string(m.rec.Spec.ID) != e.Name() || !m.rec.Host.Addr.Is4() {
			p.cfg.Log.Warn("a machine without a readable record is removed", "machine", e.Name(), "error", err)
			continue
		}
		p.adopt(m)
		p.machines[m.rec.Spec.ID] = m
		hosts = append(hosts, m.rec.Host)
	}
	return hosts, nil
}

// cutOff reports whether an error says that a file is no JSON, or not all of it.
func cutOff(err error) bool {
	_, ok := errors.AsType[*json.SyntaxError](err)
	return ok
}

// adopt finds the process of a machine that was started before, by us or by a former server.
func (p *Provider) adopt(m *machine) {
	var r run
	id := string(m.rec.Spec.ID)
	if err := readJSON(filepath.Join(m.dir, "run.json"), &r); err == nil {
		m.run = &r
	} else if pid := readPID(filepath.Join(m.dir, "pid")); pid > 0 {
		// The server died between runc's success and its record. A fifo that is still there
		// means that runc died too, before the first process was let go.
		if _, err := os.Lstat(p.path("runc", id, "exec.fifo")); errors.Is(err, fs.ErrNotExist) {
			m.run = &run{Starts: m.rec.Starts, PID: pid, StartTime: startTime(pid)}
		}
	}
	if m.run == nil {
		return
	}
	if m.hold(p.groups.Path(id)) {
		if err := writeJSON(filepath.Join(m.dir, "run.json"), m.run); err != nil {
			p.cfg.Log.Warn("an adopted machine cannot be recorded", "machine", id, "error", err)
		}
	}
}

// hold opens the process of a run if it is still the one that was started, in the machine's own group.
func (m *machine) hold(group string) bool {
	fd, err := unix.PidfdOpen(m.run.PID, 0)
	if err != nil {
		return false
	}
	// The handle is open, so what /proc says now is about the process it holds, or that one has ended.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.run.PID))
	if err != nil || !strings.Contains(string(b), group) || m.run.StartTime == 0 || startTime(m.run.PID) != m.run.StartTime {
		unix.Close(fd)
		return false
	}
	m.pidfd = fd
	return true
}

// startTime is when a process started, in clock ticks since boot; zero if there is no such process.
func startTime(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; the fields after it are fixed. starttime is the
	// 22nd of all, the 20th after the name.
	_, rest, _ := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// find returns a machine by its id.
func (p *Provider) find(id shoal.MachineID) *machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.machines[id]
}
