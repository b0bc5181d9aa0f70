// Package cluster runs a PostgreSQL of one's own: Debian's programs, in a fresh directory, on a Unix socket.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a PostgreSQL server with its databases. It never runs as root.
type Cluster struct {
	dir, bin string // dir has the socket and the log
	store    string // has the data
	settings []string
	account  *syscall.Credential
	cmd      *exec.Cmd
	count    atomic.Int64
}

// New makes a cluster with its data below /tmp, and starts it; see NewIn.
func New(ctx context.Context, settings ...string) (*Cluster, error) {
	return NewIn(ctx, "/tmp", settings...)
}

// NewIn makes a cluster with its data below a directory, which others may enter, and starts it. settings are further ones, such as fsync=off for tests of which none is about a
// power cut. The caller closes it.
func NewIn(ctx context.Context, store string, settings ...string) (c *Cluster, err error) {
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(all) == 0 {
		return nil, errors.New("PostgreSQL is missing: scripts/setup test installs it")
	}
	slices.Sort(all)
	c = &Cluster{bin: filepath.Dir(all[len(all)-1]), settings: settings}
	if c.account, err = account(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("/tmp", "shoal-pg-"); err != nil { // a socket's path is short
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.remove()
		}
	}()
	if c.store, err = os.MkdirTemp(store, "shoal-pg-data-"); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.dir, c.store} {
		if c.account == nil {
			break
		}
		if err := os.Chown(dir, int(c.account.Uid), int(c.account.Gid)); err != nil {
			return nil, err
		}
	}
	init := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"), "--pgdata", c.data(), "--username", "shoal", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	init.Dir, init.SysProcAttr = c.dir, &syscall.SysProcAttr{Credential: c.account}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make a cluster: %w: %s", err, bytes.TrimSpace(out))
	}
	return c, c.Start(ctx)
}

// account is that of Debian's package, for root; who is not root runs it herself.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (c *Cluster) data() string { return filepath.Join(c.store, "data") }

// Start starts the server on what is there, and waits until it answers.
func (c *Cluster) Start(ctx context.Context) error {
	args := []string{"-D", c.data(), "-k", c.dir, "-c", "listen_addresses=", "-c", "max_connections=200"}
	for _, s := range c.settings {
		args = append(args, "-c", s)
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command(filepath.Join(c.bin, "postgres"), args...)
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Dir = log, log, c.dir
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	for begun := time.Now(); ; {
		err := c.do(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		if time.Since(begun) > 3*time.Minute || ctx.Err() != nil {
			return fmt.Errorf("the database does not answer: %w\n%s", err, c.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Database makes an empty database and returns its address.
func (c *Cluster) Database(ctx context.Context) (string, error) {
	name := "shoal" + strconv.FormatInt(c.count.Add(1), 10)
	return c.address(name), c.do(ctx, "CREATE DATABASE "+name)
}

func (c *Cluster) address(name string) string {
	return (&url.URL{Scheme: "postgres", User: url.User("shoal"), Path: "/" + name, RawQuery: "host=" + c.dir}).String()
}

func (c *Cluster) do(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.address("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// Log is what the server wrote.
func (c *Cluster) Log() string {
	text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return string(text)
}

// Stop ends the server and all its connections in an orderly way.
func (c *Cluster) Stop() error { return c.end(syscall.SIGINT) }

// Kill ends it as a crash would.
func (c *Cluster) Kill() error { return c.end(syscall.SIGQUIT) }

func (c *Cluster) end(s syscall.Signal) error {
	if c.cmd == nil {
		return nil
	}
	_ = c.cmd.Process.Signal(s)
	err := c.cmd.Wait()
	c.cmd = nil
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		return nil
	}
	return err
}

// Freeze stops the server's processes where they are; Thaw lets them go on.
func (c *Cluster) Freeze() error { return c.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (c *Cluster) Thaw() error { return c.signal(syscall.SIGCONT) }

// signal reaches the server and its children, each of which is the leader of a group of its own.
func (c *Cluster) signal(s syscall.Signal) error {
	pid := c.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	pids := []int{pid}
	for _, f := range strings.Fields(string(children)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			return err
		}
		pids = append(pids, child)
	}
	var errs []error
	for _, p := range pids {
		if err := syscall.Kill(p, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close ends the server and removes all it kept.
func (c *Cluster) Close() error { return errors.Join(c.Kill(), c.remove()) }

func (c *Cluster) remove() error { return errors.Join(os.RemoveAll(c.dir), os.RemoveAll(c.store)) }
