package files

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/atmost"
)

// User is with whose rights files are read.
type User struct {
	Name   shoal.UserName
	UID    int
	GID    int
	Groups []int // beside GID
}

const (
	maxThreads = 32               // that read at a time
	maxPerUser = 8                // of one user
	patience   = 20 * time.Second // for a file system to answer
)

// threads bounds how many threads wait for file systems, by uid: one that does not answer keeps those that ask it.
type threads = atmost.Limit[int]

func newThreads() *threads { return atmost.New[int](maxPerUser, maxThreads) }

// do calls f with a user's rights and the directories of shares, which the server opens: the way there is
// its own, as it is for a machine. It returns an error also if ctx ends, or a file system does not answer,
// before f does. Then late is called with what f made, once it did.
func do[T any](ctx context.Context, t *threads, u User, outputs []Output, f func(roots map[string]*os.Root) (T, error), late func(T)) (T, error) {
	var none T
	if u.UID <= 0 || u.GID <= 0 {
		return none, shoal.Errorf(shoal.KindDenied, "cannot read files as user %q, who has no number", u.Name)
	}
	if !t.Enter(u.UID) {
		return none, shoal.Errorf(shoal.KindUnavailable, "too many files are being read").WithHint("try again in a moment")
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result) // taken by the caller, or nobody
	gone := make(chan struct{})
	go onThread(func() {
		defer t.Leave(u.UID)
		var r result
		roots, err := open(outputs)
		defer shut(roots)
		if r.err = err; r.err == nil {
			r.err = become(u)
		}
		if r.err == nil {
			r.v, r.err = f(roots)
		}
		select {
		case done <- r:
		case <-gone:
			if r.err == nil {
				late(r.v)
			}
		}
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	defer close(gone)
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, shoal.Errorf(shoal.KindCancelled, "stopped reading files: %w", context.Cause(ctx))
	case <-timer.C:
		return none, shoal.Errorf(shoal.KindUnavailable, "the file system does not answer").WithHint("see whether the share's server is up")
	}
}

// onThread calls f on a thread that ends with it, so that nobody inherits what f does to it. The process's
// first thread would not end: it waits until another has called f.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // without unlocking, which is what ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

// open opens the directories of shares.
func open(outputs []Output) (map[string]*os.Root, error) {
	roots := map[string]*os.Root{}
	for _, o := range outputs {
		if roots[o.Share] != nil {
			continue
		}
		root, err := os.OpenRoot(o.Share)
		if err != nil {
			return roots, shoal.Errorf(shoal.KindUnavailable, "cannot open the directory of output %s's share: %w", o.Name, err)
		}
		roots[o.Share] = root
	}
	return roots, nil
}

func shut(roots map[string]*os.Root) {
	for _, r := range roots {
		r.Close()
	}
}

// become gives the calling thread, and no other, a user's rights to files. The calls are raw: the
// library's own would change all threads.
func become(u User) error {
	if os.Geteuid() != 0 {
		if u.UID == os.Geteuid() {
			return nil
		}
		return shoal.Errorf(shoal.KindUnavailable, "a server that is not root cannot read files as user %s", u.Name)
	}
	groups := []uint32{uint32(u.GID)}
	for _, g := range u.Groups {
		groups = append(groups, uint32(g))
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return fmt.Errorf("cannot take the groups of user %s: %w", u.Name, errno)
	}
	// These report what was, and no error: asked again, with a number that is none, they tell what is.
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(u.GID), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(u.UID), 0, 0) // last: it takes the right to do the others, and to pass over modes
	const none = ^uintptr(0)
	gid, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, none, 0, 0)
	uid, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, none, 0, 0)
	if int32(gid) != int32(u.GID) || int32(uid) != int32(u.UID) {
		return shoal.Errorf(shoal.KindInternal, "cannot read files as user %s", u.Name)
	}
	return nil
}
