package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts/served"
	"github.com/shoal-pool/shoal/provider"
)

func TestShares(t *testing.T) {
	needHost(t)
	cfg := place(t)
	server := served.SSH(t)
	reads := 0
	cfg.Secret = func(context.Context, shoal.ShareName, string) ([]byte, error) {
		reads++
		return []byte(server.Key), nil
	}
	p := open(t, cfg)
	team := server.Share("team")
	local := t.TempDir()
	if err := os.Chmod(local, 0o777); err != nil {
		t.Fatal(err)
	}
	mounts := []provider.Mount{{Share: team, Path: "/shared"},
		{Share: shoal.Share{Name: "local", Source: local}, Path: "/shared/local"},
		{Share: shoal.Share{Name: "local", Source: local}, Path: "/readonly", ReadOnly: true}}
	if err := os.Mkdir(filepath.Join(server.Dir, "local"), 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, id := range []string{"m-1", "m-2"} {
		wg.Go(func() {
			s := spec(id, "lab")
			s.Mounts = mounts
			if err := p.Create(context.Background(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wait(t, p, "m-1", provider.PhaseRunning)
	wait(t, p, "m-2", provider.PhaseRunning)

	// What is written on a share is on the share, at once, with its owner.
	must(t, p, "m-1", "setpriv --reuid 20001 --regid 20001 --clear-groups sh -c 'umask 077; echo one > /shared/file; echo two > /shared/local/file'")
	if got := must(t, p, "m-2", "cat /shared/file /shared/local/file /readonly/file; stat -c %u-%a /shared/local/file"); got != "one\ntwo\ntwo\n20001-600" {
		t.Errorf("the other machine sees %q", got)
	}
	if read(t, filepath.Join(server.Dir, "file")) != "one\n" || read(t, filepath.Join(local, "file")) != "two\n" {
		t.Error("the shares do not hold what was written")
	}
	refused(t, p, "m-1", "echo x > /readonly/x")
	refused(t, p, "m-1", "mount -o remount,rw /readonly && echo x > /readonly/x")
	// A setuid program on a share has no effect anywhere.
	must(t, p, "m-1", "cp /usr/bin/id /shared/id; chmod 4755 /shared/id")
	if got := must(t, p, "m-2", "setpriv --reuid 20001 --regid 20001 --clear-groups /shared/id -u"); got != "20001" {
		t.Errorf("a setuid program on the share runs as %s", got)
	}

	// Once for both machines.
	if reads != 1 {
		t.Errorf("the credentials were read %d times", reads)
	}
	for _, id := range []shoal.MachineID{"m-1", "m-2"} {
		if err := p.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	wait(t, p, "m-1", "")
	wait(t, p, "m-2", "")
	// The last one to go unmounts, when it has been forgotten.
	eventually(t, func() error {
		left, err := filepath.Glob(p.path("shares", "team-*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("still there: %v", left)
		}
		return err
	})
	if read(t, filepath.Join(server.Dir, "file")) != "one\n" {
		t.Error("the share's file went with the machine")
	}
}

// eventually waits for what the kernel or a worker does in its own time.
func eventually(t testing.TB, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// An unreachable share says so, and what to do; the machine fails and holds up no other.
func TestUnreachableShare(t *testing.T) {
	needHost(t)
	server := served.SSH(t)
	cfg := place(t)
	cfg.mounts.Timeout = 20 * time.Second
	cfg.Secret = func(context.Context, shoal.ShareName, string) ([]byte, error) { return []byte(server.Key), nil }
	p := open(t, cfg)
	team := server.Share("team")
	server.Kill()
	s := spec("m-hung", "lab")
	s.Mounts = []provider.Mount{{Share: team, Path: "/shared"}}
	if err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	absent := spec("m-absent", "lab")
	absent.Mounts = []provider.Mount{{Share: shoal.Share{Name: "nowhere", Source: "/no/such/directory"}, Path: "/shared"}}
	if err := p.Create(t.Context(), absent); err != nil {
		t.Fatal(err)
	}
	create(t, p, spec("m-other", "lab"))
	for _, c := range []struct {
		id    shoal.MachineID
		phase provider.Phase
		want  string
	}{{"m-hung", provider.PhaseCreating, "cannot reach share team"}, {"m-absent", provider.PhaseFailed, "/no/such/directory is not a directory"}} {
		eventually(t, func() error {
			o, err := p.Observe(t.Context())
			for _, m := range o.Machines {
				if m.ID == c.id && (m.Phase != c.phase || !strings.Contains(m.Reason, c.want)) {
					return fmt.Errorf("%+v", m)
				}
			}
			return err
		})
	}
	pool := shoal.Pool{Name: "lab", Image: "host", Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}, {Share: "other", Path: "/x"}, {Share: "team", Path: "/etc"}}}
	err := p.Check(t.Context(), pool, []shoal.Share{team})
	for _, want := range []string{"cannot reach share team", `no share "other"`, `at "/etc"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a check does not say %q: %v", want, err)
		}
	}
	if shoal.KindOf(err) != shoal.KindInvalid || shoal.HintOf(err) == "" {
		t.Errorf("kind %s, hint %q", shoal.KindOf(err), shoal.HintOf(err))
	}
	// The machine that waited goes on by itself when the server is there.
	server.Start()
	wait(t, p, "m-hung", provider.PhaseRunning)
}

// deadServer mounts a FUSE file system that nobody answers: whoever looks at it hangs, as with a dead
// file server. With taken set it has taken a request and will never answer it, so that who asked cannot even be killed.
func deadServer(t testing.TB, dir string) (device *os.File) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("the test needs FUSE: %v", err)
	}
	device = os.NewFile(uintptr(fd), "/dev/fuse")
	err = unix.Mount("dead", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_FORCE)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		device.Close()
	})
	return device
}

// A local directory on a dead file server: the machine that has it fails or waits, all others go on.
func TestDeadServer(t *testing.T) {
	needHost(t)
	cfg := place(t)
	cfg.mounts.Timeout = 300 * time.Millisecond
	p := open(t, cfg)
	dir := filepath.Join(t.TempDir(), "dead")
	device := deadServer(t, dir)
	s := spec("m-dead", "lab")
	s.Mounts = []provider.Mount{{Share: shoal.Share{Name: "dead", Source: dir}, Path: "/shared"}}
	if err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	create(t, p, spec("m-1", "lab"))
	eventually(t, func() error {
		o, err := p.Observe(t.Context())
		for _, m := range o.Machines {
			if m.ID == "m-dead" && !strings.Contains(m.Reason, "does not answer") {
				return fmt.Errorf("%+v", m)
			}
		}
		return err
	})
	for _, id := range []shoal.MachineID{"m-dead", "m-1"} {
		if err := p.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
		wait(t, p, id, "")
	}
	device.Close()
}
