package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
)

// While people log in and submit jobs a backup is taken, restored elsewhere, and moved to the other kind of database. A server that is started on
// what came of it knows all that was accepted before, and works. Whoever interrupts a command on the way finds nothing half.
func TestBackupWhileBusy(t *testing.T) {
	t.Parallel()
	pg, address := database(t)
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); backupWhileBusy(t, pg, "") })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); backupWhileBusy(t, pg, address) })
}

func backupWhileBusy(t *testing.T, pg *cluster.Cluster, address string) {
	from, dir := newDir(t), newDir(t)
	var flags []string
	if address != "" {
		flags = []string{"--database", address}
	}
	w := newWorldIn(t, from, flags...)
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 2}", 4, "scale: {idle: {after: 1h}}\n"+smallSeats))
	l := newLife(w)
	stop := l.begin(l.logins, l.submissions, l.people)
	defer stop()
	l.more("logins")
	l.more("jobs")

	saved := func(n int) string { return filepath.Join(dir, fmt.Sprint("backup", n)) }
	var jobs map[string]shoal.Job
	var users []shoal.UserName
	w.interrupt(func(n int) []string {
		l.mu.Lock()
		jobs, users = maps.Clone(l.jobs), slices.Clone(l.users)
		l.mu.Unlock()
		return append([]string{"admin", "backup", "--data", w.Data, saved(n)}, flags...)
	}, saved)
	l.more("jobs")
	l.more("logins")
	stop()
	l.checkJobs()

	// The last of the backups is that of which it is known what was there before.
	data := func(n int) string { return filepath.Join(dir, fmt.Sprint("data", n)) }
	databases := map[int]string{}
	place := func(n int) string {
		if databases[n] == "" {
			var err error
			if databases[n], err = pg.Database(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return databases[n]
	}
	w.interrupt(func(n int) []string {
		args := []string{"admin", "restore", "--data", data(n), saved(interruptions)}
		if address != "" {
			args = append(args, "--database", place(n))
		}
		return args
	}, data)

	// A file goes into a PostgreSQL, and a PostgreSQL into the file of a data directory.
	second := w.second(dir, data(interruptions))
	file := func(n int) string { return filepath.Join(second.Data, fmt.Sprintf("copy%d.db", n)) }
	w.interrupt(func(n int) []string {
		if address == "" {
			return []string{"admin", "migrate", "--from", "sqlite:" + filepath.Join(second.Data, "shoal.db"), "--to", place(n)}
		}
		return []string{"admin", "migrate", "--from", place(interruptions), "--to", "sqlite:" + file(n)}
	}, file)
	if address == "" {
		second.Flags = []string{"--database", place(interruptions)}
	} else if err := os.Rename(file(interruptions), filepath.Join(second.Data, "shoal.db")); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, second.logTail())
	}
	t.Cleanup(second.close)
	second.knows(jobs, users)
}

// people adds users as fast as it can.
func (l *life) people(*rand.Rand) {
	for i := 0; l.ctx.Err() == nil; i++ {
		name := shoal.UserName(fmt.Sprintf("x%d", i))
		if _, err := l.Client.AddUser(l.ctx, shoal.User{Name: name}, ""); err == nil {
			l.mu.Lock()
			l.users = append(l.users, name)
			l.mu.Unlock()
		} else if l.ctx.Err() == nil {
			l.t.Errorf("user %s was refused: %v", name, err)
		}
	}
}

// interruptions is how often a command is interrupted.
const interruptions = 3

// interrupt runs a command without being interrupted, and then some times with: it says so and leaves nothing at its target, or it had ended. Run
// again it succeeds.
func (w *world) interrupt(args func(n int) []string, target func(n int) string) {
	w.t.Helper()
	began := time.Now()
	w.shoal(args(0)...)
	took := time.Since(began)
	for n := 1; n <= interruptions; n++ {
		cmd := exec.Command(filepath.Join(w.Bin, "shoal"), args(n)...)
		var done, said strings.Builder
		cmd.Stdout, cmd.Stderr = &done, &said
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(took * time.Duration(n) / (interruptions + 1))
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			w.t.Fatal(err)
		}
		ended := cmd.Wait() == nil
		early := cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() // before it looked out for signals, or when it had said what is done
		if ended || early && done.Len() > 0 {
			continue
		}
		if !early && !strings.HasPrefix(said.String(), "shoal: interrupted") {
			w.t.Errorf("%v says %q", cmd.Args, said.String())
		}
		if _, err := os.Lstat(target(n)); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("%v has left %s: %v", cmd.Args, target(n), err)
		}
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(target(n)), ".shoal-*")); err != nil || len(left) > 0 {
			w.t.Errorf("%v has left %v, %v", cmd.Args, left, err)
		}
		w.shoal(args(n)...)
	}
}

// second is a world of its own in a directory, with the first one's users and share, whose server is not started.
func (w *world) second(dir, data string) *world {
	w.t.Helper()
	other := *w.World
	other.Dir, other.Data, other.Flags = dir, data, nil
	for _, name := range []string{"key", "key.pub"} {
		if _, err := rig.Output(exec.Command("cp", "-a", filepath.Join(w.Dir, name), dir)); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, port := range []*string{&other.API, &other.Port, &other.HTTPS} {
		var err error
		if *port, err = rig.FreePort(); err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	if other.Client, err = client.New(client.Options{Socket: filepath.Join(data, "shoal.sock")}); err != nil {
		w.t.Fatal(err)
	}
	return &world{World: &other, t: w.t}
}

// knows looks whether a server has what was accepted, and works.
func (w *world) knows(jobs map[string]shoal.Job, users []shoal.UserName) {
	w.t.Helper()
	w.t.Logf("there were %d jobs and %d users", len(jobs), len(users))
	if len(jobs) == 0 || len(users) == 0 {
		w.t.Error("that is nothing")
	}
	for key, was := range jobs {
		j, err := w.Client.Job(w.t.Context(), was.ID)
		if err != nil || j.Spec.Name != key || j.User != "u1" || j.Counts.Total() != 4 {
			w.t.Errorf("job %s, which was %s, is %+v, %v", key, was.ID, j, err)
		}
		if _, err := w.as("u1").Submit(w.t.Context(), shoal.JobSpec{Pool: "lab", Command: "true"}, key); shoal.KindOf(err) != shoal.KindConflict {
			w.t.Errorf("the key of job %s can be used for another one: %v", was.ID, err)
		}
	}
	all, err := w.Client.Users(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	there := map[shoal.UserName]bool{}
	for _, u := range all {
		there[u.Name] = true
	}
	for _, u := range users {
		if !there[u] {
			w.t.Errorf("user %s is missing", u)
		}
	}
	if who := w.ssh("u2+lab", "id -un"); who != "u2" {
		w.t.Errorf("who logs in is %q", who)
	}
	if out, err := w.Shoal(w.t.Context(), "--as", "u3", "run", "-p", "lab", "--wait", "--", "id", "-un"); err != nil || !strings.HasSuffix(out, "u3\n") {
		w.t.Errorf("a job prints %q, %v", out, err)
	}
}
