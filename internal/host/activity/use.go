package activity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// What uses the processor for a tenth of one of them, taken over a minute, is at work. An editor's server that nobody
// looks at stays far below that.
const (
	floor     = 0.1
	measured  = time.Minute
	stillBusy = 2*measured + 30*time.Second // a measurement is due by then
)

// use is what is remembered of what a user has in use.
type use struct {
	last        time.Time // when something was
	input       time.Time // the newest that was seen, by a clock that may be set
	kernel      time.Time // the same of when a kernel last computed
	connections int
	from        time.Time // when the processor's time was read
	used        map[process]uint64
	busy        time.Time // when it was last found to be used; zero: never
}

// judgeUse says what of a user's is in use, or for how long nothing has been. At least one of them is set. What uses
// the processor becomes a pin, if there is none.
func (w *Watcher) judgeUse(uid int, f *found, input, now time.Time) (string, shoal.Duration) {
	u := w.uses[uid]
	if u == nil {
		u = &use{last: now, input: input, kernel: f.kernel, from: now, used: times(f.own)}
		w.uses[uid] = u
	}
	if elapsed := now.Sub(u.from); elapsed >= measured {
		if spent := spent(u.used, f.own); float64(spent)/ticks/elapsed.Seconds() >= floor {
			u.busy = now
		}
		u.from, u.used = now, times(f.own)
	}
	busy := !u.busy.IsZero() && now.Sub(u.busy) < stillBusy
	if busy && f.connections == 0 && len(f.pins) == 0 {
		f.pins["busy"] = 1
	}
	if !input.Equal(u.input) || !f.kernel.Equal(u.kernel) || f.connections > u.connections {
		u.last = now
	}
	u.input, u.kernel, u.connections = input, f.kernel, f.connections
	what := ""
	switch {
	case len(f.programs) > 0:
		what = sayPrograms(f.programs)
	case busy:
		what = "what she has there uses the processor"
	case len(f.own) > 0 && w.gpus():
		what = "a GPU of the machine is in use"
	default:
		return "", shoal.Duration(max(now.Sub(u.last), time.Second))
	}
	u.last = now
	return what, 0
}

// times is what processes have used of the processor.
func times(procs []*proc) map[process]uint64 {
	out := make(map[process]uint64, len(procs))
	for _, p := range procs {
		out[process{p.pid, p.born}] = p.used
	}
	return out
}

// spent is what processes have used since.
func spent(before map[process]uint64, procs []*proc) (sum uint64) {
	for _, p := range procs {
		if was := before[process{p.pid, p.born}]; p.used > was {
			sum += p.used - was
		}
	}
	return sum
}

// program reports whether p is in use by itself. All that cannot be told to wait for somebody is.
func (t *tree) program(p *proc) bool {
	switch {
	case left(p), sshd(p.name), multiplexer(p.name), viewer(p.name), editorServer(p), notebookServer(p), p.name == "sftp-server":
		return false
	case shell(p.name):
		return !prompt(p.args)
	case kernel(p):
		return !p.waits
	case p.tty:
		return true
	}
	return !t.helps(p)
}

// helps reports whether p is one of the programs by which an editor's server does its work.
func (t *tree) helps(p *proc) bool {
	for range 1000 { // a loop, put together from two moments
		above := t.byPID[p.ppid]
		if above == nil || above.uid != p.uid {
			return false
		}
		if p = above; editorServer(p) {
			return true
		}
	}
	return false
}

// prompt reports whether a shell with these arguments asks a person what to do next, or waits for her.
func prompt(args string) bool {
	f := strings.Fields(args)
	if len(f) == 0 {
		return false // it is not known
	}
	for i := 1; i < len(f); i++ {
		switch a := f[i]; {
		case a == "--init-file" || a == "--rcfile" || a == "-o" || a == "+o" || a == "-O" || a == "+O":
			i++ // its value
		case strings.HasPrefix(a, "--"):
			if strings.HasPrefix(a, "--command") { // fish
				return false
			}
		case len(a) > 1 && (a[0] == '-' || a[0] == '+'):
			if strings.ContainsRune(a, 'c') {
				return false
			}
		default:
			return false // a script
		}
	}
	return true
}

// multiplexer reports whether a program only holds terminals for when their user comes back.
func multiplexer(name string) bool {
	switch name {
	case "tmux: server", "tmux: client", "tmux", "screen", "SCREEN", "zellij", "dtach", "abduco", "mosh-server":
		return true
	}
	return false
}

// viewer reports whether a program does nothing but show something to who looks at it.
func viewer(name string) bool {
	switch name {
	case "top", "htop", "btop", "atop", "nvtop", "watch", "less", "more", "most", "man", "pager", "info":
		return true
	}
	return false
}

// notebookServer reports whether p serves notebooks. Their kernels, and what runs in their terminals, are programs of their own.
func notebookServer(p *proc) bool {
	if kernel(p) || !strings.HasPrefix(p.name, "jupyter") && !strings.HasPrefix(p.name, "python") {
		return false
	}
	for _, mark := range []string{"jupyter-lab", "jupyter-notebook", "jupyter-server", "jupyterhub-singleuser", "jupyter lab", "jupyter notebook", "jupyter server",
		"-m jupyterlab", "-m notebook", "-m jupyter_server"} {
		if strings.Contains(p.args, mark) {
			return true
		}
	}
	return false
}

// sayPrograms names what is in use: "python3 and 2 more programs run".
func sayPrograms(names []string) string {
	slices.Sort(names)
	first := clean(names[0])
	switch n := len(names) - 1; n {
	case 0:
		return first + " runs"
	case 1:
		return fmt.Sprintf("%s and another program run", first)
	default:
		return fmt.Sprintf("%s and %d more programs run", first, n)
	}
}
