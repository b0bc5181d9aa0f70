package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
)

// Two servers share a PostgreSQL. The one that leads is killed or frozen at any moment of a busy life, and the other takes over.
// Nothing that was accepted is lost, tasks run once, and a session goes on.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	needHost(t)
	pg, err := cluster.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	address, err := pg.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shoal-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldIn(t, dir, "--database", address)
	tasks := filepath.Join(w.Share, "tasks")
	if err := os.Mkdir(tasks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tasks, 0o777); err != nil {
		t.Fatal(err)
	}
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 3}", 4, "scale: {idle: {after: 1h}}\n"+smallSeats))
	w.ssh("u1+lab", "tmux new-session -d -s mine 'echo $$ > ~/mine; sleep 100000'")
	mine := func() string {
		return w.ssh("u1+lab", "tmux list-sessions -F '#{session_name}'; kill -0 $(cat ~/mine) && cat ~/mine")
	}
	before := mine()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &life{world: w, seed: uint64(time.Now().UnixNano()), began: time.Now(), ctx: ctx, jobs: map[string]shoal.Job{}, count: map[string]int{}}
	t.Logf("seed %d", l.seed)
	var wg sync.WaitGroup
	for i, do := range []func(*rand.Rand){l.logins, l.submissions} {
		wg.Go(func() { do(rand.New(rand.NewPCG(l.seed, uint64(i)))) })
	}
	r := rand.New(rand.NewPCG(l.seed, 99))
	for round := range prove(2, 100) {
		standby, err := w.Launch()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + time.Duration(r.IntN(2000))*time.Millisecond)
		former := w.Server
		if round%2 == 0 {
			err = w.Kill()
		} else {
			err = former.Process.Signal(syscall.SIGSTOP)
		}
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w.Server = standby
		w.until("the other server answers", func() (bool, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := w.Client.Pools(ctx)
			return err == nil, nil
		})
		t.Logf("taken over after %v", time.Since(begun).Round(10*time.Millisecond))
		if round%2 == 1 {
			_ = former.Process.Signal(syscall.SIGCONT)
			if err := former.Wait(); err == nil || err.Error() != "signal: killed" {
				t.Errorf("the former leader was still there beside the one that leads, on the same directory, and ended by itself: %v", err)
			}
		}
	}
	stop()
	wg.Wait()
	t.Logf("meanwhile there were %v", l.count)
	l.checkJobs()
	if after := mine(); after != before || !strings.HasPrefix(after, "mine\n") {
		t.Errorf("her tmux was %q and is %q", before, after)
	}
}
