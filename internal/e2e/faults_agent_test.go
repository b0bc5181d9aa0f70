package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// talk is a live login that answers line by line.
type talk struct {
	w     *world
	login string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	err   *lockedText
}

// lockedText keeps what a process writes while others read it.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// talk starts a login that says each line again, and exits with a code when its input ends.
func (w *world) talk(login string, code int, options ...string) *talk {
	w.t.Helper()
	args := append(options, "-p", w.Port, login+"@127.0.0.1",
		fmt.Sprintf(`echo ready; while read line; do echo "again: $line"; done; exit %d`, code))
	k := &talk{w: w, login: login, cmd: exec.CommandContext(w.t.Context(), "ssh", append(w.SSHOptions(), args...)...), err: &lockedText{}}
	k.cmd.Stderr = k.err
	var err error
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	k.out = bufio.NewReader(out)
	if err := k.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return k
}

// hear reads a line.
func (k *talk) hear(want string) error {
	line, err := k.out.ReadString('\n')
	if line != want+"\n" {
		return fmt.Errorf("%s said %q instead of %q: %w", k.login, line, want, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// told waits until something is said beside the output.
func (k *talk) told(text string) error {
	return rig.Until(k.w.t.Context(), patience, k.login+" is told: "+text, func() (bool, error) { return strings.Contains(k.err.String(), text), nil })
}

func (k *talk) say(text string) error {
	if _, err := io.WriteString(k.in, text+"\n"); err != nil {
		return fmt.Errorf("%s: %w", k.login, err)
	}
	return k.hear("again: " + text)
}

// end closes the input and returns the exit code.
func (k *talk) end() (int, error) {
	k.in.Close()
	return k.ended()
}

// ended waits for a login that others end, and returns the exit code.
func (k *talk) ended() (int, error) {
	err := k.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return 0, err
	}
	return k.cmd.ProcessState.ExitCode(), nil
}

// all does something with all logins at once.
func all(t *testing.T, talks []*talk, do func(i int, k *talk) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i, k := range talks {
		wg.Go(func() {
			if err := do(i, k); err != nil {
				t.Errorf("%v: %s", err, k.err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// kill kills a machine's processes whose arguments contain a text.
func (w *world) kill(id shoal.MachineID, text string) {
	w.t.Helper()
	pids := w.pids(id, text)
	if len(pids) == 0 {
		w.t.Fatalf("machine %s has no process %q", id, text)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			w.t.Fatal(err)
		}
	}
}

// The agent of a machine is killed and exchanged under live logins and running tasks: none of them notices.
func TestAgentDies(t *testing.T) {
	t.Parallel()
	const people, tasks, lines = 20, 20, 400
	w := newWorld(t)
	w.apply(people, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 1GiB}", "{min: 1, max: 1}", people, smallSeats))
	m := w.ready("lab", 1)[0]
	var talks []*talk
	for i := range people {
		talks = append(talks, w.talk(fmt.Sprintf("u%d", i+1), i))
	}
	all(t, talks, func(_ int, k *talk) error { return k.hear("ready") })
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Array: fmt.Sprintf("0-%d", tasks-1), Resources: shoal.Resources{CPUs: 90, Memory: 16 << 20},
		Command: fmt.Sprintf(`while [ ! -e /shared/go ]; do sleep 0.1; done; i=0; while [ $i -lt %d ]; do echo line $i of $SHOAL_ARRAY_INDEX; echo trouble $i >&2; i=$((i+1)); [ $((i %% 20)) = 0 ] && sleep 0.5; done; exit $SHOAL_ARRAY_INDEX`, lines)}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.until("all tasks run", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.Counts.Running == tasks, err
	})
	if err := build(filepath.Join(w.Dir, "shoal-agent"), "another", "./cmd/shoal-agent"); err != nil {
		t.Fatal(err)
	}
	w.open("go")
	for i := range repeat(t, 5, 60, "deaths of agents") {
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		if i == 2 { // as an upgrade does
			if err := os.Rename(filepath.Join(w.Dir, "shoal-agent"), filepath.Join(w.Data, "local", "bin", "shoal-agent")); err != nil {
				t.Fatal(err)
			}
		}
		w.until("the agent runs", func() (bool, error) { return len(w.pids(m.ID, "shoal-agent run")) > 0, nil })
		w.kill(m.ID, "shoal-agent run")
		all(t, talks, func(_ int, k *talk) error { return k.say(fmt.Sprintf("kill %d", i)) })
	}
	w.checkOutputs(job.ID, tasks, lines)
	all(t, talks, func(i int, k *talk) error {
		if code, err := k.end(); code != i || err != nil {
			return fmt.Errorf("%s ended with %d, %v", k.login, code, err)
		}
		return nil
	})
	if got := w.ssh("u1", "/opt/shoal/bin/shoal-agent version"); got != "another" {
		t.Errorf("the agent's version is %q", got)
	}
}

// open makes a file on the share, for which tasks wait.
func (w *world) open(gate string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.Share, gate), nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// checkOutputs waits for a job of tasks that write so many lines to both streams and exit with their index.
func (w *world) checkOutputs(id shoal.JobID, tasks, lines int) {
	w.t.Helper()
	w.until("the job ends", func() (bool, error) {
		j, err := w.Client.Job(w.t.Context(), id)
		return j.State.Ended(), err
	})
	list, err := w.Client.Tasks(w.t.Context(), id, 0, tasks+1)
	if err != nil || len(list) != tasks {
		w.t.Fatalf("the job has %d tasks, %v", len(list), err)
	}
	for _, a := range list {
		if a.ExitCode != a.Index || a.Attempt != 1 || a.TruncatedAt != nil {
			w.t.Errorf("task %d ended as %+v", a.Index, a)
		}
		for stream, line := range map[string]string{"stdout": fmt.Sprintf("line %%d of %d\n", a.Index), "stderr": "trouble %d\n"} {
			var want strings.Builder
			for i := range lines {
				fmt.Fprintf(&want, line, i)
			}
			if got, err := w.output(shoal.TaskRef{Job: id, Index: a.Index}, stream); got != want.String() {
				w.t.Errorf("%s of task %d has %d bytes instead of %d, %v", stream, a.Index, len(got), want.Len(), err)
			}
		}
	}
}

// output reads a task's output, to its end.
func (w *world) output(ref shoal.TaskRef, stream string) (string, error) {
	return w.said(ref, stream, true)
}

// said reads what there is of a task's output, and what follows.
func (w *world) said(ref shoal.TaskRef, stream string, follow bool) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	r, err := w.Client.Output(ctx, ref, client.OutputQuery{Stream: stream, Follow: follow})
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// A machine's first process is killed. Logins are told and end, tasks are queued again and finish elsewhere,
// and the next login finds another machine.
func TestInitDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(2, rig.Pool("lab", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 2}", 8, ""))
	k := w.talk("u1", 0)
	all(t, []*talk{k}, func(_ int, k *talk) error { return k.hear("ready") })
	m := w.ready("lab", 1)[0]
	job, err := w.as("u2").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Array: "0-3", Resources: shoal.Resources{CPUs: 100, Memory: 16 << 20},
		Command: `echo $(hostname); [ -e ~/second ] || sleep 1000; exit 7`}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.until("all tasks run, and their output is there", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		if err != nil || j.Counts.Running != 4 {
			return false, err
		}
		for i := range 4 {
			if said, err := w.said(shoal.TaskRef{Job: job.ID, Index: i}, "stdout", false); err != nil || said != string(m.ID)+"\n" {
				return false, err
			}
		}
		return true, nil
	})
	w.ssh("u2", "touch second")
	w.kill(m.ID, "shoal-agent init")
	if code, err := k.ended(); code == 0 || err != nil {
		t.Errorf("the login ended with %d, %v", code, err)
	}
	if !strings.Contains(k.err.String(), string(m.ID)) {
		t.Errorf("the login was told nothing of machine %s: %q", m.ID, k.err)
	}
	w.until("the job ends", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State.Ended(), err
	})
	list, err := w.Client.Tasks(t.Context(), job.ID, 0, 10)
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, a := range list {
		if a.State != shoal.JobFailed || a.ExitCode != 7 || a.Attempt != 2 || a.Failures != 1 || a.Machine == m.ID {
			t.Errorf("a task ended as %+v", a)
		}
		if got, err := w.output(a.TaskRef, "stdout"); got != fmt.Sprintf("%s\n\n--- attempt 2 of task %s ---\n%s\n", m.ID, a.TaskRef, a.Machine) {
			t.Errorf("its output is %q, %v", got, err)
		}
	}
	if got := w.ssh("u1", "hostname"); got == string(m.ID) || got == "" {
		t.Errorf("the next login is on %q", got)
	}
	gone, err := w.Client.Machine(t.Context(), m.ID)
	if gone.State != shoal.MachineFailed && gone.State != shoal.MachineGone || !strings.Contains(gone.Reason, "first process") || err != nil {
		t.Errorf("the machine is %s: %s, %v", gone.State, gone.Reason, err)
	}
}

// runc is killed whenever it is seen: who waits for a machine gets one in the end.
func TestRuncDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(1, rig.Pool("lab", "interactive", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 1}", 8, ""))
	var killed atomic.Int32
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; ctx.Err() == nil && killed.Load() < 3; time.Sleep(time.Millisecond) {
			for _, pid := range w.runcs() {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed.Add(1)
				}
			}
		}
	})
	defer wg.Wait()
	defer stop()
	for try := 0; killed.Load() == 0; try++ {
		if try == 20 {
			t.Fatal("runc was never seen")
		}
		m := w.ssh("u1", "hostname")
		w.endSessions()
		w.shoal("machine", "delete", m, "--force")
	}
	w.ssh("u1", "true")
	t.Logf("runc was killed %d times", killed.Load())
}

// runcs lists the processes of runc that the server has started.
func (w *world) runcs() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, name := range names {
		args, err := os.ReadFile(name)
		var pid int
		if _, bad := fmt.Sscanf(name, "/proc/%d/cmdline", &pid); err == nil && bad == nil &&
			strings.Contains(string(args), "runc\x00--root\x00"+w.Dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}
