package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
)

// database makes a PostgreSQL of the test's own, and returns the address of a database in it.
func database(t *testing.T) (*cluster.Cluster, string) {
	t.Helper()
	return databaseIn(t, "/tmp")
}

// databaseIn is database with its data below a directory.
func databaseIn(t *testing.T, dir string) (*cluster.Cluster, string) {
	t.Helper()
	needHost(t)
	pg, err := cluster.NewIn(t.Context(), dir)
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
	return pg, address
}

// launch starts a server that stands by. A test that fails leaves none behind beside the world's own.
func (w *world) launch(s *rig.World) *exec.Cmd {
	w.t.Helper()
	server, err := s.Launch()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if server != w.Server && server.ProcessState == nil {
			_ = server.Process.Kill()
			_ = server.Wait() // killed
		}
	})
	return server
}

// answers waits until the server that is to lead does, rather than the former one.
func (w *world) answers(since time.Time) {
	w.t.Helper()
	w.until("the other server answers", func() (bool, error) {
		leader, _ := os.ReadFile(filepath.Join(w.Data, "serve.lock")) // written by who takes over
		if strings.TrimSpace(string(leader)) != strconv.Itoa(w.Server.Process.Pid) {
			return false, nil
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		_, err := w.Client.Pools(ctx)
		return err == nil, nil
	})
	w.t.Logf("taken over after %v", time.Since(since).Round(10*time.Millisecond))
}

// Two servers share a PostgreSQL. The one that leads is killed, frozen, or told to end at any moment of a busy life, and the other takes over.
// Nothing that was accepted is lost, tasks run once, and a session goes on; so do connections through one that is told to end.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	_, address := database(t)
	dir := newDir(t)
	w := newWorldIn(t, dir, "--database", address, "--linger", "10m")
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 3}", 4, "scale: {idle: {after: 1h}}\n"+smallSeats))
	w.ssh("u1+lab", "tmux new-session -d -s mine 'echo $$ > ~/mine; sleep 100000'")
	mine := func() string {
		return w.ssh("u1+lab", "tmux list-sessions -F '#{session_name}'; kill -0 $(cat ~/mine) && cat ~/mine")
	}
	before := mine()

	l := newLife(w)
	stop := l.begin(l.logins, l.submissions)
	defer stop()
	r := rand.New(rand.NewPCG(l.seed, 99))
	for round := range repeat(t, 3, 100, "takeovers") {
		standby := w.launch(w.World)
		time.Sleep(time.Second + time.Duration(r.IntN(2000))*time.Millisecond)
		former := w.Server
		connection := w.talk("u2+lab", 4)
		all(t, []*talk{connection}, func(_ int, k *talk) error { return k.hear("ready") })
		how := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM}[round%3]
		if err := former.Process.Signal(how); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w.Server = standby
		w.answers(begun)
		if how == syscall.SIGSTOP {
			_ = former.Process.Signal(syscall.SIGCONT)
		}
		if how == syscall.SIGTERM {
			all(t, []*talk{connection}, func(_ int, k *talk) error { return k.say("still here") })
			if code, err := connection.end(); code != 4 || err != nil {
				t.Errorf("a connection through the server that was told to end ended with %d, %v", code, err)
			}
			if err := former.Wait(); err != nil {
				t.Errorf("the server that was told to end ended with %v", err)
			}
			continue
		}
		if _, err := connection.ended(); err != nil {
			t.Error(err)
		}
		if err := former.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("the former leader was still there beside the one that leads, on the same directory, and ended by itself: %v", err)
		}
	}
	stop()
	l.checkJobs()
	if after := mine(); after != before || !strings.HasPrefix(after, "mine\n") {
		t.Errorf("her tmux was %q and is %q", before, after)
	}
}
