package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// State is what a look found.
type State string

// The states. Missing is what the server cannot do without.
const (
	OK      State = "ok"
	Warning State = "warning"
	Missing State = "missing"
)

// Finding is the outcome of one look.
type Finding struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	// Mend is the command, or the advice, that sets it right.
	Mend string `json:"mend,omitempty"`
	// Package is the Debian package that Mend installs, if it installs one.
	Package string `json:"package,omitempty"`
}

// Host is the machine that is looked at, and the server that is to run there.
type Host struct {
	Root      string // where its files are; empty: /
	UID       int    // who looks
	Data      string // the data directory to be
	Listen    string // the addresses to be
	SSHListen string
	// HTTPSListen is empty, or off, where browsers are not served.
	HTTPSListen string
	GPURoot     string // below which the GPUs' nodes and driver lie; empty: Root
	Agent       string // where shoal-agent is expected
	LookPath    func(name string) (string, error)
	// Output runs a program and returns what it writes.
	Output func(ctx context.Context, name string, args ...string) (string, error)
	// Try holds looks that act on the real host. Nil: they are left out.
	Try *Trials
}

// Here is the host that this program runs on.
func Here(data, listen, sshListen string) Host {
	h := Host{UID: os.Geteuid(), Data: data, Listen: listen, SSHListen: sshListen, LookPath: lookTool, Try: newTrials(),
		Output: func(ctx context.Context, name string, args ...string) (string, error) {
			out, err := exec.CommandContext(ctx, name, args...).Output()
			return string(out), err
		}}
	if self, err := os.Executable(); err == nil {
		h.Agent = filepath.Join(filepath.Dir(self), "shoal-agent")
	}
	return h
}

// lookTool finds a program, also in the places for root's, which are not in every PATH.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// path is where a file of the host is.
func (h Host) path(elem ...string) string {
	return filepath.Join("/", h.Root, filepath.Join(elem...))
}

func (h Host) read(path string) (string, error) {
	b, err := os.ReadFile(h.path(path))
	return string(b), err
}

// Look makes all checks, in an order in which mending one may mend those below.
func (h Host) Look(ctx context.Context) []Finding {
	checks := []func(context.Context) []Finding{h.root, h.programs, h.agent, h.capabilities, h.cgroups, h.overlay, h.network,
		h.forwarding, h.forwardChains, h.ports, h.disk, h.clock, h.accounts, h.gpus, h.authority, h.hub}
	var found []Finding
	for _, check := range checks {
		if ctx.Err() != nil {
			break
		}
		found = append(found, check(ctx)...)
	}
	return found
}

// Install is the one command that installs all packages that findings name, empty if there are none.
func Install(found []Finding) string {
	var names []string
	for _, f := range found {
		if f.Package != "" && f.State != OK && !slices.Contains(names, f.Package) {
			names = append(names, f.Package)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "apt-get install -y " + strings.Join(names, " ")
}

func ok(check, format string, args ...any) []Finding {
	return []Finding{{Check: check, State: OK, Detail: fmt.Sprintf(format, args...)}}
}

func missing(check, mend, format string, args ...any) []Finding {
	return []Finding{{Check: check, State: Missing, Detail: fmt.Sprintf(format, args...), Mend: mend}}
}

func warning(check, mend, format string, args ...any) []Finding {
	return []Finding{{Check: check, State: Warning, Detail: fmt.Sprintf(format, args...), Mend: mend}}
}
