package hub

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// once starts the hub and returns why it ended, which is never for nothing.
func (h *Hub) once(ctx context.Context) error {
	h.set(starting, "")
	if err := h.makeDir(); err != nil {
		return err
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer serveHTTP(front, h.forward(), h.cfg.Log)()
	routes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer serveHTTP(routes, h.cfg.Routes, h.cfg.Log)()
	door, err := h.listenForMachines(ctx)
	if err != nil {
		return err
	}
	machines := ""
	if door != nil {
		machines = "http://" + door.Addr().String()
		defer serveHTTP(door, onlyAPI(h.forward()), h.cfg.Log)()
	}
	if err := h.layout("http://"+front.Addr().String(), "http://"+routes.Addr().String(), machines); err != nil {
		return fmt.Errorf("cannot write JupyterHub's files: %w", err)
	}
	c, err := h.start()
	if err != nil {
		return err
	}
	// For people who look for it among others.
	defer os.Remove(h.path("pid"))
	if err := write(h.path("pid"), []byte(strconv.Itoa(c.pid)+"\n"), 0o644, 0); err != nil {
		h.cfg.Log.Warn("JupyterHub's process number is not written down", "err", err)
	}
	err = h.watch(ctx, c)
	c.stop(h.cfg.patience.stop)
	if errors.Is(err, errEnded) {
		return c.why()
	}
	return err
}

var errEnded = errors.New("it has ended")

// child is a hub that runs.
type child struct {
	pid   int
	ended chan struct{}
	state *os.ProcessState
	log   *tail
}

// start runs the program with nothing of root's: in a mount namespace in which DIR is at /mnt, and as an
// account that has no name. It dies with this process.
func (h *Hub) start() (*child, error) {
	program, err := exec.LookPath(h.cfg.Program) // in this process's PATH: it may lie in an environment of its own
	if err != nil {
		return nil, err
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	log, err := openTail(h.path("hub.log"))
	if err != nil {
		return nil, err
	}
	id := strconv.Itoa(hubID)
	cmd := exec.Command("unshare", "--mount", "--", "sh", "-c", `mount --bind "$1" `+inside+` && cd `+inside+`/state && umask 077 && shift && exec "$@"`, "hub", h.cfg.Dir,
		"setpriv", "--reuid="+id, "--regid="+id, "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--pdeathsig", "KILL", "--",
		program, "-f", inside+"/config/jupyterhub_config.py")
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + inside + "/state", "USER=shoal-hub", "LOGNAME=shoal-hub", "LANG=C.UTF-8",
		"PYTHONPATH=" + inside + "/lib", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"}
	read, writeEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.close())
	}
	cmd.Stdout, cmd.Stderr = writeEnd, writeEnd
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c := &child{ended: make(chan struct{}), log: log}
	started := make(chan error)
	go func() {
		// The signal is sent when the thread that started it ends, so that one must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		writeEnd.Close()
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot start JupyterHub: %w", err), read.Close(), log.close())
			started <- err
			return
		}
		c.pid = cmd.Process.Pid
		started <- nil
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			log.copy(read)
		}()
		_ = cmd.Wait() // the state tells
		c.state = cmd.ProcessState
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // what it left
		select {
		case <-copied:
		case <-time.After(time.Second): // somebody else holds the other end
		}
		_ = read.Close()
		_ = log.close()
		close(c.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// watch asks the hub whether it is well until it ends, hangs, or ctx ends.
func (h *Hub) watch(ctx context.Context, c *child) error {
	until := time.Now().Add(h.cfg.patience.start)
	for pause := 100 * time.Millisecond; !h.well(ctx); pause = min(2*pause, time.Second) {
		if time.Now().After(until) {
			return fmt.Errorf("it did not answer within %s of its start: %s", h.cfg.patience.start, c.log.last())
		}
		if err := c.wait(ctx, pause); err != nil {
			return err
		}
	}
	h.rises(ctx)
	for fails := 0; ; {
		if err := c.wait(ctx, h.cfg.patience.probe); err != nil {
			return err
		}
		if h.well(ctx) {
			fails = 0
			h.rises(ctx)
			continue
		}
		if fails++; fails >= h.cfg.patience.fails && ctx.Err() == nil {
			return fmt.Errorf("it hung: it did not answer %d times in a row", fails)
		}
		if h.set(ill, "") {
			h.cfg.Log.Warn("JupyterHub does not answer", "within", h.cfg.patience.answer)
		}
	}
}

// well asks a page that needs no login.
func (h *Hub) well(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.patience.answer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hub/hub/health", nil)
	if err != nil {
		return false
	}
	asks := &http.Transport{DialContext: h.dial, DisableKeepAlives: true}
	resp, err := asks.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == http.StatusOK
}

// wait returns nil after a while, or why not.
func (c *child) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return errEnded
	case <-t.C:
		return nil
	}
}

// stop ends it if it runs. A hub that is asked leaves its servers and routes as they are.
func (c *child) stop(patience time.Duration) {
	_ = syscall.Kill(-c.pid, syscall.SIGTERM) // it may have ended
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-t.C:
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
		<-c.ended
	}
}

// why says how it ended, with its last word.
func (c *child) why() error {
	how := "it ended"
	if ws, ok := c.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Errorf("it was killed by signal %d", ws.Signal()) // its last word knew nothing of it
	} else if c.state != nil {
		how = fmt.Sprintf("it ended with exit code %d", c.state.ExitCode())
	}
	if last := c.log.last(); last != "" {
		how += ": " + last
	}
	return errors.New(how)
}

// tail writes what a program says into a file that does not grow without end, and remembers the last of it.
type tail struct {
	path string
	mu   sync.Mutex
	f    *os.File
	size int64
	line string // the last that tells something
}

// usualLine is of JupyterHub's log, below errors.
var usualLine = regexp.MustCompile(`^\[[DIW] `)

const (
	maxLog  = 8 << 20
	maxLine = 64 << 10
)

func openTail(path string) (*tail, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &tail{path: path, f: f, size: info.Size()}, nil
}

func (t *tail) copy(from io.Reader) {
	r := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := r.ReadSlice('\n') // a longer one comes in pieces
		t.add(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(line[:min(len(line), 300)])); text != "" && !usualLine.MatchString(text) {
		t.line = text
	}
	if t.size > maxLog {
		// A file that cannot be put aside is begun anew.
		if os.Rename(t.path, t.path+".1") != nil {
			_ = t.f.Truncate(0)
		} else if f, err := os.OpenFile(t.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			t.f.Close()
			t.f = f
		}
		t.size = 0
	}
	n, _ := t.f.Write(line) // a full disk must not stop the hub
	t.size += int64(n)
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.line, "")
}

func (t *tail) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.f.Close()
}
