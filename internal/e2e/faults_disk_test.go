package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// fill fills a file system with a file and returns what empties it again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// smallDisk makes a directory with a small file system on it.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needHost(t)
	dir := newDir(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", data, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The disk of the data directory is full. What needs it is refused with a clear word, what does not goes on,
// and once there is room again all is as it was and as it should be.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "256m")
	w := newWorldIn(t, dir)
	w.onClosed = func() { _ = unix.Unmount(w.Data, unix.MNT_DETACH) }
	w.apply(3, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 0, max: 2}", 8, ""))
	host := w.ssh("u1", "hostname")
	live := w.talk("u2", 4)
	all(t, []*talk{live}, func(_ int, k *talk) error { return k.hear("ready") })
	small := shoal.Resources{CPUs: 100, Memory: 32 << 20}
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "echo begin; while [ ! -e ~/go ]; do sleep 0.1; done; echo end; exit 3", Resources: small}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.until("the job runs", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State == shoal.JobRunning, err
	})

	empty := fill(t, w.Data)
	added := 0
	w.until("a user is refused", func() (bool, error) { // the database may have room left in what it has written
		_, err = w.Shoal(t.Context(), "user", "add", fmt.Sprint("carol", added))
		added++
		return err != nil, nil
	})
	if !strings.Contains(err.Error(), "full") && !strings.Contains(err.Error(), "no space") {
		t.Errorf("of adding a user on a full disk it is said: %v", err)
	} else {
		t.Logf("adding user %d: %v", added, err)
	}
	all(t, []*talk{live}, func(_ int, k *talk) error { return k.say("still here") })
	for _, args := range [][]string{{"pool", "list"}, {"machine", "list"}, {"session", "list"}, {"job", "show", string(job.ID)}, {"why", "pool", "lab"}, {"usage"}} {
		if out, err := w.Shoal(t.Context(), args...); err != nil {
			t.Errorf("shoal %v: %v, %q", args, err, out)
		}
	}
	waiting := []*talk{w.talk("u1", 1), w.talk("u3", 3)} // one who has a session and one who has none
	all(t, waiting, func(_ int, k *talk) error { return k.told("disk is full") })
	if err := os.WriteFile(filepath.Join(w.Share, "home", "u1", "go"), nil, 0o644); err != nil { // the job ends while nothing can be stored
		t.Error(err)
	}
	all(t, []*talk{live}, func(_ int, k *talk) error { return k.say("still here") })
	time.Sleep(time.Second)
	empty()
	w.until("the job has ended", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State.Ended(), err
	})
	tasks, err := w.Client.Tasks(t.Context(), job.ID, 0, 1)
	if err != nil || len(tasks) != 1 || tasks[0].ExitCode != 3 || tasks[0].Attempt != 1 {
		t.Errorf("the job ended as %+v, %v", tasks, err)
	}
	if got, err := w.output(shoal.TaskRef{Job: job.ID}, "stdout"); got != "begin\nend\n" {
		t.Errorf("its output is %q, %v", got, err)
	}
	w.shoal("user", "add", "carol")
	all(t, waiting, func(_ int, k *talk) error { return k.hear("ready") })
	all(t, waiting[:1], func(_ int, k *talk) error { return k.say("as before") })
	if got := w.ssh("u1", "hostname"); got != host {
		t.Errorf("u1 is on %s, and was on %s", got, host)
	}
	if code, err := live.end(); code != 4 || err != nil {
		t.Errorf("the login that was there all the time ended with %d, %v", code, err)
	}
}
