package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// Times of a copy.
const (
	copyOpen  = 30 * time.Second // for the file to be opened
	copyStuck = 10 * time.Second // without a byte that went on, once the task has ended
)

// copyScript opens a file as the user whose process it is, says so, and appends what it reads. $2 says whether what the
// file holds stays.
const copyScript = `if [ "$2" = anew ]; then : >"$1" || exit; else : >>"$1" || exit; fi; exec 3>>"$1" || exit; echo ready; exec cat >&3 3>&-`

// copier writes what a task says into a file of its user's, by a process that is hers as well: root never opens what
// she names, and a file server that does not answer holds up nobody else. It reads what was kept on the machine's
// disk, so a slow file costs no byte of that.
type copier struct {
	path string
	from []*output
	at   []int64
	to   *os.File // the process's input
	says *os.File // what it says
	exit chan exit
	pid  int
	wake chan struct{} // capacity 1
	last chan struct{} // closed when nothing more comes
	done chan struct{} // closed when all is written, or can be no more
	err  error         // once done
}

func (c *copier) poke() {
	if c != nil {
		poke(c.wake)
	}
}

// openCopies opens the files that the order wants copies in. What it returns is why it cannot.
func (t *task) openCopies() string {
	o := t.req.Order
	defer func() {
		for _, c := range t.copies {
			go c.run()
		}
	}()
	for i, p := range []string{o.Stdout, o.Stderr} {
		if p == "" || o.Idle {
			continue
		}
		if !path.IsAbs(p) {
			p = path.Join(t.workdir, p)
		}
		if i == 1 && len(t.copies) == 1 && t.copies[0].path == p { // both in one file
			c := t.copies[0]
			c.from, c.at = append(c.from, t.out[1]), append(c.at, 0)
			t.out[1].copier = c
			continue
		}
		c, err := t.openCopy(p)
		if err != nil {
			return fmt.Sprintf("cannot write its %s to %s as %s: %v", [2]string{"stdout", "stderr"}[i], p, o.User, err)
		}
		c.from, c.at = append(c.from, t.out[i]), append(c.at, 0)
		t.out[i].copier = c
		t.copies = append(t.copies, c)
	}
	return ""
}

// openCopy starts the process of a copy and waits until it has opened the file. It is not of the task's control
// group, whose processes are killed before the last of the output is known.
func (t *task) openCopy(file string) (*copier, error) {
	in, out := [2]int{}, [2]int{}
	if err := errors.Join(unix.Pipe2(in[:], unix.O_CLOEXEC), unix.Pipe2(out[:], unix.O_CLOEXEC)); err != nil {
		return nil, err
	}
	c := &copier{path: file, exit: make(chan exit, 1), wake: make(chan struct{}, 1), last: make(chan struct{}), done: make(chan struct{})}
	err := errors.Join(unix.SetNonblock(in[1], true), unix.SetNonblock(out[0], true))
	c.to, c.says = os.NewFile(uintptr(in[1]), "copy"), os.NewFile(uintptr(out[0]), "copy")
	how := "anew"
	if t.ref.Attempt > 1 {
		how = "on"
	}
	var group cgroups.Group
	if err == nil {
		group, err = t.s.groups.User(t.req.Person.UID)
	}
	if err == nil {
		c.pid, err = t.s.forks.start(forkRequest{argv: []string{shellPath, "-c", copyScript, "sh", file, how}, env: []string{"PATH=" + userPath}, dir: "/",
			person: t.req.Person, group: group, exit: c.exit, files: []uintptr{uintptr(in[0]), uintptr(out[1]), uintptr(out[1])}})
	}
	_, _ = unix.Close(in[0]), unix.Close(out[1])
	if err == nil {
		if err = c.opened(); err == nil {
			return c, nil
		}
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	_, _ = c.to.Close(), c.says.Close()
	return nil, err
}

// opened waits until the process says that it has opened the file.
func (c *copier) opened() error {
	_ = c.says.SetReadDeadline(time.Now().Add(copyOpen)) // pipes have deadlines
	var said []byte
	for b := make([]byte, 512); ; {
		n, err := c.says.Read(b)
		said = append(said, b[:n]...)
		switch {
		case bytes.Equal(said, []byte("ready\n")):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("the file does not open; its file server may not answer")
		case err != nil || len(said) > 4096:
			return errors.New(reasonOf(said))
		}
	}
}

// reasonOf is what a shell or cat says of a file: "sh: 1: cannot create /x: Permission denied".
func reasonOf(said []byte) string {
	s := lastOf(said)
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	if s == "" {
		return "it cannot be opened"
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// run writes what comes until all has been written that was kept.
func (c *copier) run() {
	defer close(c.done)
	b := make([]byte, 32<<10)
	for ended := false; ; {
		moved, err := c.move(b)
		switch {
		case err != nil:
			c.err = err
			return
		case moved:
			continue
		case ended:
			return
		}
		select {
		case <-c.wake:
		case <-c.last:
			ended = true // and one more look
		}
	}
}

// move takes a piece of each stream.
func (c *copier) move(b []byte) (moved bool, err error) {
	for i, o := range c.from {
		n := min(o.size.Load()-c.at[i], int64(len(b)))
		if n <= 0 {
			continue
		}
		f, err := os.Open(o.path)
		if err != nil {
			return false, err
		}
		got, err := f.ReadAt(b[:n], c.at[i])
		_ = f.Close()
		if got == 0 && err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if err := c.write(b[:got]); err != nil {
			return false, err
		}
		c.at[i] += int64(got)
		moved = moved || got > 0
	}
	return moved, nil
}

// write waits as long as it takes while the task runs, since the file may be slow for a while.
func (c *copier) write(b []byte) error {
	for len(b) > 0 {
		_ = c.to.SetWriteDeadline(time.Now().Add(copyStuck))
		n, err := c.to.Write(b)
		b = b[n:]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-c.last:
				if n == 0 {
					return errors.New("its file server does not answer")
				}
			default:
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// closeCopies waits until the copies are whole, as long as they get on.
func (t *task) closeCopies() {
	for _, c := range t.copies {
		close(c.last)
	}
	for _, c := range t.copies {
		<-c.done
		_ = c.to.Close()
		var said []byte
		if c.err == nil || errors.Is(c.err, unix.EPIPE) { // what it has read is with the file's server, or it has gone
			_ = c.says.SetReadDeadline(time.Now().Add(copyStuck))
			said, _ = io.ReadAll(io.LimitReader(c.says, 4096))
		}
		_ = c.says.Close()
		var e exit
		select {
		case e = <-c.exit:
		case <-time.After(time.Second):
			_ = syscall.Kill(-c.pid, syscall.SIGKILL)
			c.err = errors.New("its file server does not answer")
		}
		switch {
		case len(said) > 0:
			t.note(fmt.Sprintf("the copy of its output in %s is not whole: %s", c.path, reasonOf(said)))
		case c.err != nil:
			t.note(fmt.Sprintf("the copy of its output in %s is not whole: %v", c.path, c.err))
		case e.status != 0:
			t.note(fmt.Sprintf("the copy of its output in %s may not be whole", c.path))
		}
	}
}
