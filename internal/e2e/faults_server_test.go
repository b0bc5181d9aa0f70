package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// life is what people do to a server that is killed again and again, and what it promised them.
type life struct {
	*world
	seed  uint64
	began time.Time
	ctx   context.Context
	lead  string // the socket of whoever leads; empty: the server's

	mu    sync.Mutex
	users []shoal.UserName
	jobs  map[string]shoal.Job // by idempotency key, as it was accepted
	gone  bool                 // the deletion of pool side was accepted, and nothing asked for it again
	count map[string]int
}

const lifeUsers = 6

// newLife makes the place where tasks of a life write.
func newLife(w *world) *life {
	w.t.Helper()
	tasks := filepath.Join(w.Share, "tasks")
	if err := errors.Join(os.Mkdir(tasks, 0o755), os.Chmod(tasks, 0o777)); err != nil {
		w.t.Fatal(err)
	}
	l := &life{world: w, seed: uint64(time.Now().UnixNano()), began: time.Now(), jobs: map[string]shoal.Job{}, count: map[string]int{}}
	w.t.Logf("seed %d", l.seed)
	return l
}

// begin has people do things until it is stopped.
func (l *life) begin(all ...func(*rand.Rand)) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.ctx = ctx
	var wg sync.WaitGroup
	for i, do := range all {
		wg.Go(func() { do(rand.New(rand.NewPCG(l.seed, uint64(i)))) })
	}
	return sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		for what, n := range l.count {
			tally(l.t, n, what)
		}
	})
}

// more waits until they have done something once more.
func (l *life) more(what string) {
	l.t.Helper()
	done := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.count[what]
	}
	before := done()
	l.until("there are more "+what, func() (bool, error) { return done() > before, nil })
}

// side is a pool that comes and goes.
func side() string {
	return rig.Pool("side", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 4, "")
}

func (l *life) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[what]++
}

// patient asks until the server answers, with whatever it answers.
func (l *life) patient(ask func(ctx context.Context) error) error {
	for l.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
		err := ask(ctx)
		silent := ctx.Err() != nil
		cancel()
		if silent {
			continue
		}
		if _, ok := errors.AsType[*shoal.Error](err); err == nil || ok && shoal.KindOf(err) != shoal.KindUnavailable {
			return err
		}
		time.Sleep(30 * time.Millisecond)
	}
	return l.ctx.Err()
}

func (l *life) logins(r *rand.Rand) {
	for l.ctx.Err() == nil {
		login := fmt.Sprintf("u%d+lab", r.IntN(lifeUsers)+1)
		ctx, cancel := context.WithTimeout(l.ctx, patience)
		cmd := l.SSH(ctx, login, "echo in; exit 3")
		var trouble strings.Builder
		cmd.Stderr = &trouble
		out, err := cmd.Output()
		cancel()
		code := cmd.ProcessState.ExitCode()
		switch {
		case l.ctx.Err() != nil:
		case strings.Contains(trouble.String(), "Permission denied"):
			l.t.Errorf("ssh %s: %s", login, trouble.String())
		case code == 3 && string(out) == "in\n":
			l.did("logins")
		case code == 255 || code == 75:
			l.did("logins broken off")
		default:
			l.t.Errorf("ssh %s: exit %d, %v, %q, %s", login, code, err, out, trouble.String())
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	}
}

// submissions sends jobs with a key, again where the answer was lost.
func (l *life) submissions(r *rand.Rand) {
	asUser := l.asAt(l.lead, "u1")
	for i := 0; l.ctx.Err() == nil; i++ {
		key := fmt.Sprintf("key-%d", i)
		spec := shoal.JobSpec{Pool: "lab", Array: "0-3", Name: key, Resources: shoal.Resources{CPUs: 90, Memory: 16 << 20},
			// A line for each beginning and each end, in a file of each task's own.
			Command: fmt.Sprintf(`f=/shared/tasks/%s-$SHOAL_TASK_INDEX; echo begin >> $f; echo out; sleep 0.%d; echo end >> $f; exit $SHOAL_TASK_INDEX`, key, r.IntN(10))}
		var job shoal.Job
		err := l.patient(func(ctx context.Context) (err error) {
			job, err = asUser.Submit(ctx, spec, key)
			return err
		})
		if err == nil {
			l.mu.Lock()
			l.jobs[key] = job
			l.mu.Unlock()
			l.did("jobs")
		} else if l.ctx.Err() == nil {
			l.t.Errorf("a job was refused: %v", err)
		}
		time.Sleep(time.Duration(200+r.IntN(400)) * time.Millisecond)
	}
}

// changes adds users and scales the pool up, down and back to what demand asks.
func (l *life) changes(r *rand.Rand) {
	for i := 0; l.ctx.Err() == nil; i++ {
		name := shoal.UserName(fmt.Sprintf("x%d", i))
		err := l.patient(func(ctx context.Context) error {
			_, err := l.Client.AddUser(ctx, shoal.User{Name: name}, "")
			return err
		})
		if err == nil || shoal.KindOf(err) == shoal.KindConflict { // it was, and the answer was lost
			l.mu.Lock()
			l.users = append(l.users, name)
			l.mu.Unlock()
			l.did("users")
		} else if l.ctx.Err() == nil {
			l.t.Errorf("user %s was refused: %v", name, err)
		}
		request := api.ScaleRequest{Auto: true}
		if n := r.IntN(4); n > 1 {
			request = api.ScaleRequest{Size: n}
		}
		err = l.patient(func(ctx context.Context) error {
			_, err := l.Client.ScalePool(ctx, "lab", request)
			return err
		})
		if err == nil {
			l.did("scalings")
		} else if l.ctx.Err() == nil {
			l.t.Errorf("scaling was refused: %v", err)
		}
		time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
	}
}

// comings makes pool side and deletes it.
func (l *life) comings(r *rand.Rand) {
	docs := filepath.Join(l.Dir, "side.yaml")
	if err := os.WriteFile(docs, []byte(strings.TrimPrefix(side(), "---\n")), 0o644); err != nil {
		l.t.Error(err)
	}
	for l.ctx.Err() == nil {
		l.mu.Lock()
		l.gone = false
		l.mu.Unlock()
		if _, err := l.Shoal(l.ctx, "apply", "-f", docs); err == nil {
			l.did("pools made")
		}
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		err := l.patient(func(ctx context.Context) error { return l.Client.DeletePool(ctx, "side") })
		if err == nil || shoal.KindOf(err) == shoal.KindNotFound {
			l.did("pools deleted")
			l.mu.Lock()
			l.gone = true
			l.mu.Unlock()
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
	}
}

// The server is killed at any moment of a busy life and started again. Nothing that it accepted is lost,
// machines are adopted, tasks run once, and in the end nothing is left.
func TestServerDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 0, max: 3}", 4, "scale: {idle: {after: 2s}}\n"+smallSeats))
	l := newLife(w)
	stop := l.begin(l.logins, l.logins, l.submissions, l.changes, l.comings)
	defer stop()
	r := rand.New(rand.NewPCG(l.seed, 99))
	for range repeat(t, 20, 300, "deaths of the server") {
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	w.shoal("pool", "scale", "lab", "--auto")
	l.checkJobs()
	l.checkObjects()
	l.checkBill()
}

// checkJobs: each accepted job is there once, each of its tasks ran once and ended as it should.
func (l *life) checkJobs() {
	l.t.Helper()
	for _, key := range slices.Sorted(maps.Keys(l.jobs)) {
		id := l.jobs[key].ID
		var job shoal.Job
		l.until("job "+string(id)+" ends", func() (bool, error) {
			var err error
			job, err = l.Client.Job(l.t.Context(), id)
			return job.State.Ended(), err
		})
		if job.Counts.Succeeded != 1 || job.Counts.Failed != 3 {
			l.t.Errorf("job %s ended as %+v", id, job.Counts)
		}
		tasks, err := l.Client.Tasks(l.t.Context(), id, 0, 10)
		if err != nil || len(tasks) != 4 {
			l.t.Errorf("job %s has tasks %v, %v", id, tasks, err)
		}
		for _, a := range tasks {
			if a.ExitCode != a.Index || a.StdoutBytes != 4 || a.Attempt != 1 {
				l.t.Errorf("task %v ended as %s with %d, %d bytes, and %s: %s", a.AttemptRef, a.State, a.ExitCode, a.StdoutBytes, a.Cause, a.Reason)
			}
			text, err := os.ReadFile(filepath.Join(l.Share, "tasks", fmt.Sprintf("%s-%d", key, a.Index)))
			if string(text) != "begin\nend\n" {
				l.t.Errorf("task %v wrote %q, %v", a.AttemptRef, text, err)
			}
		}
	}
	all, err := l.Client.Jobs(l.t.Context(), client.JobQuery{Pool: "lab", Limit: 100000})
	if err != nil {
		l.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, j := range all {
		if names[j.Spec.Name] {
			l.t.Errorf("job %s is there twice", j.Spec.Name)
		}
		names[j.Spec.Name] = true
	}
}

// checkObjects: accepted users are there, a deleted pool goes, each machine that runs is known.
func (l *life) checkObjects() {
	l.t.Helper()
	for _, u := range l.users {
		if _, err := l.Client.User(l.t.Context(), u); err != nil {
			l.t.Errorf("user %s, who was accepted: %v", u, err)
		}
	}
	if l.gone {
		l.until("pool side is gone", func() (bool, error) {
			_, err := l.Client.Pool(l.t.Context(), "side")
			return shoal.KindOf(err) == shoal.KindNotFound, nil
		})
	}
	l.until("all machines are at rest and are those of the host", func() (bool, error) {
		all, err := l.Client.Machines(l.t.Context(), client.MachineQuery{})
		var known []string
		for _, m := range all {
			if m.Alive() {
				known = append(known, string(m.ID))
			}
		}
		slices.Sort(known)
		return slices.Equal(known, l.containers()), err
	})
}

// containers lists what runc knows.
func (l *life) containers() []string {
	out, err := exec.Command("runc", "--root", filepath.Join(l.Data, "local", "runc"), "list", "-q").Output()
	if err != nil {
		l.t.Errorf("runc list: %v", err)
	}
	list := strings.Fields(string(out))
	slices.Sort(list)
	return list
}

// checkBill: no machine's time is counted twice, and none was forgotten to be closed.
func (l *life) checkBill() {
	l.t.Helper()
	ask := func() map[string]float64 {
		bill, err := l.Client.Usage(l.t.Context(), "machine", "", time.Time{})
		if err != nil || len(bill.Rows) == 0 {
			l.t.Fatalf("the bill: %+v, %v", bill, err)
		}
		seconds := map[string]float64{}
		for _, r := range bill.Rows {
			seconds[r.Key] = r.MachineSeconds
			if lived := time.Since(l.began).Seconds(); r.MachineSeconds > lived {
				l.t.Errorf("machine %s costs %v s in a life of %v s", r.Key, r.MachineSeconds, lived)
			}
		}
		return seconds
	}
	all, err := l.Client.Machines(l.t.Context(), client.MachineQuery{})
	if err != nil {
		l.t.Fatal(err)
	}
	before := ask() // which is the last that those pay who were no more
	for key, seconds := range ask() {
		alive := slices.ContainsFunc(all, func(m shoal.Machine) bool { return string(m.ID) == key && m.Alive() })
		if old, ok := before[key]; ok && !alive && old != seconds {
			l.t.Errorf("machine %s is no more, and its cost goes on: %v s, %v s", key, old, seconds)
		}
	}
}
