package local

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// fileServer answers a FUSE file system's requests with an empty directory until it is told to be dead: then it
// takes requests and answers none, so that who asks can not even be killed.
type fileServer struct {
	device *os.File
	dead   atomic.Bool
	taken  chan struct{} // one for each request that got no answer
}

func serveFiles(t testing.TB, dir string) *fileServer {
	t.Helper()
	f := &fileServer{device: deadServer(t, dir), taken: make(chan struct{}, 100)}
	go func() {
		request := make([]byte, 1<<17)
		for {
			n, err := f.device.Read(request)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
				continue // withdrawn
			}
			if err != nil || n < 40 {
				return
			}
			if f.dead.Load() {
				f.taken <- struct{}{}
				continue
			}
			f.answer(request)
		}
	}()
	return f
}

// The parts of the protocol that are needed, from linux/fuse.h.
const (
	fuseGetattr = 3
	fuseForget  = 2
	fuseInit    = 26
)

func (f *fileServer) answer(request []byte) {
	le := binary.NativeEndian
	reply := make([]byte, 16, 16+104)
	switch le.Uint32(request[4:]) {
	case fuseForget:
		return
	case fuseInit:
		reply = reply[:16+64]
		le.PutUint32(reply[16:], 7)
		le.PutUint32(reply[20:], 31)
		le.PutUint32(reply[36:], 4096) // max_write
	case fuseGetattr:
		reply = reply[:16+104] // valid for no time
		le.PutUint64(reply[32:], 1)
		le.PutUint32(reply[32+60:], unix.S_IFDIR|0o777)
		le.PutUint32(reply[32+64:], 2)
	default:
		le.PutUint32(reply[4:], uint32(0x100000000-int64(unix.ENOSYS)))
	}
	le.PutUint32(reply, uint32(len(reply)))
	copy(reply[8:16], request[8:16]) // the request's number
	_, _ = f.device.Write(reply)     // withdrawn, if it fails
}

// A share's server dies under a running machine: the machine cannot be ended, and waits; others come and
// go meanwhile. When the server's requests are given up, it goes by itself.
func TestServerOfAShareDies(t *testing.T) {
	needHost(t)
	cfg := place(t)
	cfg.StopGrace = 100 * time.Millisecond
	p := open(t, cfg)
	dir := filepath.Join(t.TempDir(), "share")
	server := serveFiles(t, dir)
	s := spec("m-hung", "lab")
	s.Mounts = []provider.Mount{{Share: shoal.Share{Name: "x", Source: dir}, Path: "/shared"}}
	create(t, p, s)
	must(t, p, s.ID, "test -d /shared")
	server.dead.Store(true)
	must(t, p, s.ID, "stat /shared/x >/dev/null 2>&1 </dev/null &")
	<-server.taken

	if err := p.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	create(t, p, spec("m-other", "lab"))
	if err := p.Delete(t.Context(), "m-other"); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-other", "")
	wait(t, p, s.ID, provider.PhaseStopping)
	_ = unix.Unmount(dir, unix.MNT_FORCE) // busy; what counts is that all requests fail
	wait(t, p, s.ID, "")
}

// What the host has mounted below a listed directory is in a machine: an overlay does not cross mounts.
func TestSubmounts(t *testing.T) {
	needHost(t)
	dir, err := os.MkdirTemp("/usr/local", "shoal-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	})
	if err := unix.Mount("x", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"open": 0o644, "closed": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, place(t))
	p.images.Forget()
	t.Cleanup(p.images.Forget)
	create(t, p, spec("m-1", "lab"))
	if got := must(t, p, "m-1", "cat "+dir+"/open; echo x > "+dir+"/new; ls "+dir); got != "opennew\nopen" {
		t.Errorf("the machine sees %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the host has %v, %v", entries, err)
	}
}
