package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/need"
)

// terminal is a pseudo-terminal: what is written to its slave end can be read back.
type terminal struct {
	master, slave *os.File
	shown         *locked
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "there are no terminals: "+err.Error())
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{master: master, slave: slave, shown: &locked{}}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			_, _ = term.shown.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { slave.Close(); master.Close() })
	return term
}

// TestLoginAsks: on a terminal the password is asked, and not shown.
func TestLoginAsks(t *testing.T) {
	w := newWorld(t)
	w.env = map[string]string{"HOME": w.home, "USER": "alice"}
	w.loginServer(nil, "correct horse")
	tty := newTerminal(t)
	cfg := w.config("", &bytes.Buffer{}, tty.slave)
	cfg.Stdin = tty.slave
	code := make(chan int, 1)
	go func() { code <- Main(t.Context(), []string{"login", w.srv.URL}, cfg) }()
	for !strings.Contains(tty.shown.String(), "Password of alice at ") {
		time.Sleep(time.Millisecond)
		if len(code) > 0 {
			t.Fatal(<-code, tty.shown.String())
		}
	}
	if _, err := tty.master.WriteString("correct horse\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, tty.shown.String())
	}
	if strings.Contains(tty.shown.String(), "correct") {
		t.Errorf("the password is shown: %q", tty.shown.String())
	}
	if _, err := os.Stat(filepath.Join(w.home, ".config", "shoal", "logins.json")); err != nil {
		t.Error(err)
	}
}

// TestProgressOfArray: a terminal sees how far an array is.
func TestProgressOfArray(t *testing.T) {
	w := newWorld(t)
	w.submitted(8)
	done := testJob("17", shoal.JobSucceeded, shoal.Counts{Succeeded: 8})
	end := w.play(done, 0, "", "")
	tty := newTerminal(t)
	w.mux = replaced(w.mux, "GET /api/v1/jobs/17", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, 200, testJob("17", shoal.JobRunning, shoal.Counts{Succeeded: 3, Running: 2, Queued: 3}))
	})
	code := make(chan int, 1)
	go func() {
		code <- Main(t.Context(), []string{"run", "-p", "lab", "--array", "1-8", "--wait", "true"}, w.config("", &bytes.Buffer{}, tty.slave))
	}()
	for !strings.Contains(tty.shown.String(), "3 of 8 done, 2 running, 3 queued") {
		time.Sleep(time.Millisecond)
		if len(code) > 0 {
			t.Fatal(<-code, tty.shown.String())
		}
	}
	close(end)
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

// TestProgressOfWaiting: a terminal sees in one line why a job waits, and when it starts; when that
// changes the line does.
func TestProgressOfWaiting(t *testing.T) {
	w := newWorld(t)
	end := w.play(testJob("17", shoal.JobSucceeded, shoal.Counts{Succeeded: 1}), 0, "", "")
	tty := newTerminal(t)
	w.mux = replaced(w.mux, "GET /api/v1/jobs/17", func(rw http.ResponseWriter, _ *http.Request) {
		job := testJob("17", shoal.JobQueued, shoal.Counts{Queued: 1})
		job.Promised = time.Now().Add(2*time.Hour + 10*time.Second)
		reply(rw, 200, job)
	})
	var asked atomic.Int32
	w.mux.HandleFunc("GET /api/v1/why/job/17", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, 200, api.Why{Sentence: []string{"2 machines are full", "a machine is booting"}[min(asked.Add(1), 2)-1]})
	})
	code := make(chan int, 1)
	go func() {
		code <- Main(t.Context(), []string{"job", "wait", "17"}, w.config("", &bytes.Buffer{}, tty.slave))
	}()
	for _, want := range []string{"job 17: queued, starts within 2h: 2 machines are full", "starts within 2h: a machine is booting"} {
		for !strings.Contains(tty.shown.String(), want) {
			time.Sleep(time.Millisecond)
			if len(code) > 0 {
				t.Fatal(<-code, tty.shown.String())
			}
		}
	}
	close(end)
	if got := <-code; got != 0 || strings.Contains(strings.TrimRight(tty.shown.String(), "\r\n "), "\n") {
		t.Errorf("exit code %d, shown %q", got, tty.shown.String())
	}
}

// TestTop: a terminal sees what there is, also while the server does not answer, until a key ends it and brings back what was there.
func TestTop(t *testing.T) {
	w := newWorld(t)
	w.pools()
	w.machines()
	w.list("GET /sessions", []shoal.Session{})
	w.list("GET /jobs", []shoal.Job{})
	var away atomic.Bool
	all := w.mux
	w.mux = http.NewServeMux()
	w.mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		all.ServeHTTP(rw, r)
	})
	tty := newTerminal(t)
	cfg := w.config("", tty.slave, tty.slave)
	cfg.Stdin = tty.slave
	code := make(chan int, 1)
	go func() { code <- Main(t.Context(), []string{"top", "-n", "200ms"}, cfg) }()
	until := func(text string) {
		t.Helper()
		for !strings.Contains(tty.shown.String(), text) {
			time.Sleep(time.Millisecond)
			if len(code) > 0 {
				t.Fatal(<-code, tty.shown.String())
			}
		}
	}
	until("MACHINES")
	until("m-cccccc")
	away.Store(true)
	until("the server has not answered for ")
	if _, err := tty.master.WriteString("xq"); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, tty.shown.String())
	}
	until("\x1b[?1049l")
}
