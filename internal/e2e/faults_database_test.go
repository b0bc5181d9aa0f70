package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// statements runs some as the database's administrator, whatever the database allows others.
func statements(ctx context.Context, address string, all ...string) error {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, s := range append([]string{"SET default_transaction_read_only = off"}, all...) {
		if _, err := c.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// refuses waits until who changes something is told why it cannot be.
func (w *world) refuses(why string) {
	w.t.Helper()
	w.until("changes are refused: "+why, func() (bool, error) {
		_, err := w.Shoal(w.t.Context(), "pool", "scale", "lab", "--size", "1")
		if err != nil && (!strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "hint: ")) {
			return false, err
		}
		if err != nil {
			w.t.Log(err)
		}
		return err != nil, nil
	})
}

// The database goes away in each way that one does, and comes back. What needs it is refused with a clear word, or waits; who is on a machine
// works on, what runs runs to its end, and afterwards all is as it should be, by the same server.
func TestDatabaseGoes(t *testing.T) {
	t.Parallel()
	pg, address := database(t)
	dir := newDir(t)
	wire, near := newWire(t, address)
	w := newWorldIn(t, dir, "--database", near)
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 2}", 4, "scale: {idle: {after: 1h}}\n"+smallSeats))
	live := []*talk{w.talk("u1+lab", 4)}
	all(t, live, func(_ int, k *talk) error { return k.hear("ready") })
	l := newLife(w)
	stop := l.begin(l.submissions)
	defer stop()
	r := rand.New(rand.NewPCG(l.seed, 99))
	losses := 0
	start := func() error { return pg.Start(t.Context()) }
	for round := range prove(1, 7) {
		for _, way := range []struct {
			name        string
			goes, comes func() error
			says        string // what who changes something is told; empty: she waits
			late        bool   // who logs in waits
			atLeast     time.Duration
		}{
			{"is stopped", pg.Stop, start, "the database", true, 6 * time.Second},
			{"is killed", pg.Kill, start, "the database", true, 0},
			{"does not answer", pg.Freeze, pg.Thaw, "", true, 0},
			{"is not reached", func() error { wire.cut(); return nil }, func() error { wire.mend(); return nil }, "the database", true, 0},
			{"is read-only",
				func() error {
					return statements(t.Context(), address, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
				},
				func() error {
					return statements(t.Context(), address, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
				},
				"it is read-only", false, time.Second},
		} {
			l.more("jobs")
			if err := way.goes(); err != nil {
				t.Fatal(err)
			}
			back := time.After(way.atLeast + time.Duration(r.IntN(2000))*time.Millisecond)
			if way.says != "" {
				w.refuses(way.says)
			}
			all(t, live, func(_ int, k *talk) error { return k.say("still here") })
			<-back
			late := []*talk{w.talk("u4+lab", 4)} // waits, or comes in where only changes are refused
			if way.late {
				all(t, late, func(_ int, k *talk) error { return k.told("waits for its database") })
			}
			all(t, live, func(_ int, k *talk) error { return k.say("still here") })
			if err := way.comes(); err != nil {
				t.Fatal(err)
			}
			w.until("changes are taken: the database "+way.name+" no more", func() (bool, error) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := w.Shoal(ctx, "pool", "scale", "lab", "--auto")
				return err == nil, nil
			})
			all(t, late, func(_ int, k *talk) error {
				err := k.hear("ready")
				_, gone := k.end()
				return errors.Join(err, gone)
			})
			t.Logf("round %d: the database %s, and is back", round+1, way.name)
			losses++
		}
	}
	tally(t, losses, "losses of the database")
	stop()
	l.checkJobs()
	if code, err := live[0].end(); code != 4 || err != nil {
		t.Errorf("the login that was there all the time ended with %d, %v", code, err)
	}
}

// The disk of the database is full. What no longer fits is refused, and who asks is told why; what was accepted is there, who is on a machine works
// on, what runs runs to its end, and once there is room all goes on by itself.
func TestDatabaseDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "192m")
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(filepath.Join(disk, "data"), unix.MNT_DETACH), os.RemoveAll(disk)); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(disk, 0o755); err != nil { // for PostgreSQL's account
		t.Fatal(err)
	}
	_, address := databaseIn(t, filepath.Join(disk, "data"))
	dir := newDir(t)
	w := newWorldIn(t, dir, "--database", address)
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 1}", 4, smallSeats),
		rig.Pool("later", "batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 0}", 4, ""))
	live := []*talk{w.talk("u1+lab", 4)}
	all(t, live, func(_ int, k *talk) error { return k.hear("ready") })
	l := newLife(w)
	stop := l.begin(l.submissions)
	defer stop()
	l.more("jobs")

	empty := fill(t, filepath.Join(disk, "data"))
	var waiting []shoal.JobID
	long := make([]byte, 24<<10)
	for told := false; !told; {
		_, _ = rand.NewChaCha8([32]byte{byte(len(waiting))}).Read(long)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		job, err := w.as("u2").Submit(ctx, shoal.JobSpec{Pool: "later", Command: "true", Env: map[string]string{"LONG": hex.EncodeToString(long)}}, shoal.NewToken())
		cancel()
		switch {
		case err == nil:
			waiting = append(waiting, job.ID)
		case strings.Contains(err.Error(), "disk is full") && shoal.KindOf(err) == shoal.KindUnavailable && shoal.HintOf(err) != "":
			t.Logf("after %d long jobs: %v (%s)", len(waiting), err, shoal.HintOf(err))
			told = true
		default:
			t.Fatalf("after %d long jobs: %v", len(waiting), err)
		}
	}
	all(t, live, func(_ int, k *talk) error { return k.say("still here") })
	empty()
	l.more("jobs")
	stop()
	l.checkJobs()
	for _, id := range waiting {
		if j, err := w.Client.Job(t.Context(), id); err != nil || j.State.Ended() {
			t.Errorf("job %s, which was accepted: %+v, %v", id, j.State, err)
		}
	}
	if code, err := live[0].end(); code != 4 || err != nil {
		t.Errorf("the login that was there all the time ended with %d, %v", code, err)
	}
}
