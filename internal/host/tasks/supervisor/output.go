package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputLimit bounds what is kept of one stream, so that a task gone wild does not fill the machine's disk.
const outputLimit = 4 << 30

// output takes one stream of a task from a pipe to a file. A file that the task itself wrote to could be
// cut by it, and a disk that is full would be the task's error.
type output struct {
	t       *task
	path    string
	size    atomic.Int64 // written
	write   int          // the child's end of the pipe; zero: closed
	pipe    int          // ours; zero: it is not open, or read has it
	read    *os.File
	fd      int           // of the file; zero: nothing was written yet
	done    chan struct{} // closed when the pipe has ended; nil: nothing is read by itself
	failed  error         // output was lost
	copier  *copier       // nil: nobody wants a copy
	settled bool
}

// open makes the pipe.
func (o *output) open(uid int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	o.pipe, o.write = p[0], p[1]
	if err := unix.SetNonblock(o.pipe, true); err != nil {
		return err
	}
	// So that programs can open /dev/stdout and /dev/stderr, which asks for rights anew.
	return unix.Fchown(p[1], uid, -1)
}

func (o *output) childEnd() uintptr { return uintptr(o.write) }

func (o *output) closeChildEnd() {
	if o.write != 0 {
		_ = unix.Close(o.write)
		o.write = 0
	}
}

// start starts taking output, once.
func (o *output) start() {
	if o.pipe == 0 {
		return
	}
	o.read, o.pipe = os.NewFile(uintptr(o.pipe), "output"), 0
	o.done = make(chan struct{})
	go o.copy()
}

// drain takes what is there, and reports whether that is all there will be. Of a task that was brief it is, and to have
// somebody wait for its output would cost more.
func (o *output) drain() bool {
	pool := &o.t.s.buffers
	b := pool.get()
	defer pool.pool.Put(b)
	for range maxDrains {
		n, err := unix.Read(o.pipe, *b)
		switch {
		case n > 0:
			o.keep((*b)[:n])
		case !errors.Is(err, unix.EINTR):
			return err == nil
		}
	}
	return false
}

// maxDrains is enough to empty a pipe into which nobody writes.
const maxDrains = 4

// buffers are shared by all outputs: one is taken only when there is something to read.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 64<<10)
	return &p
}

func (o *output) copy() {
	defer close(o.done)
	conn, err := o.read.SyscallConn()
	if err != nil {
		o.failed = err
		return
	}
	pool := &o.t.s.buffers
	for {
		var n int
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			b := pool.get()
			defer pool.pool.Put(b)
			n, failed = unix.Read(int(fd), *b)
			if errors.Is(failed, unix.EAGAIN) {
				return false
			}
			if n > 0 {
				o.keep((*b)[:n])
			}
			return true
		})
		if err != nil || failed != nil && !errors.Is(failed, unix.EINTR) || failed == nil && n == 0 {
			return // the end, or a deadline
		}
		if n > 0 {
			o.t.s.tellOutput(o.t)
			o.copier.poke()
		}
	}
}

// keep appends to the file. After the first byte that was lost nothing more is kept: there are no holes.
// The task writes on into nothing.
func (o *output) keep(b []byte) {
	if o.failed != nil {
		return
	}
	if o.size.Load()+int64(len(b)) > o.t.s.limit() {
		o.failed = fmt.Errorf("it is longer than %d bytes", o.t.s.limit())
		return
	}
	if o.fd == 0 {
		fd, err := unix.Open(o.path, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
		if err != nil {
			o.failed = err
			return
		}
		o.fd = fd
	}
	for len(b) > 0 {
		n, err := unix.Write(o.fd, b)
		if n > 0 {
			o.size.Add(int64(n))
			b = b[n:]
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			o.failed = err
			return
		}
	}
}

// settle waits for the end of the pipe, for a while at most.
func (o *output) settle(patience time.Duration) {
	if o.pipe != 0 && !o.settled {
		if o.settled = o.drain(); !o.settled {
			o.start()
		}
	}
	if o.done == nil || o.settled {
		return
	}
	select {
	case <-o.done:
		o.settled = true
		return
	default:
	}
	if patience <= 0 {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-o.done:
		o.settled = true
	case <-timer.C:
	}
}

// close stops reading, and waits for that.
func (o *output) close() {
	if o.pipe != 0 {
		_ = unix.Close(o.pipe)
		o.pipe = 0
	}
	if o.read != nil {
		_ = o.read.SetReadDeadline(time.Now()) // pipes have deadlines
		<-o.done
		_ = o.read.Close()
	}
	if o.fd != 0 {
		_ = unix.Close(o.fd)
		o.fd = 0
		if o.size.Load() == 0 {
			_ = os.Remove(o.path) // not one byte fitted
		}
	}
}

// lastLines are the last lines that were written, at most three, shortened.
func (o *output) lastLines() string {
	if o.size.Load() == 0 {
		return ""
	}
	f, err := os.Open(o.path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 500)
	n, _ := f.ReadAt(b, max(0, o.size.Load()-int64(len(b))))
	return lastOf(b[:n])
}

// lastOf makes the last lines of a text fit for a sentence.
func lastOf(b []byte) string {
	var lines []string
	for l := range strings.Lines(strings.ToValidUTF8(string(b), "")) {
		l = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, l))
		if l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-maxLastLines):], " | ")
}

// maxLastLines is how much of a log a reason quotes.
const maxLastLines = 3
