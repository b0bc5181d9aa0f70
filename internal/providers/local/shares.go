package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// shares makes the sources of mounts reachable on the host: a local directory is what it is, a file
// server's is mounted once and bound into every machine that has it. Whatever may hang on a server that does not
// answer is done by a child with a time limit.
type shares struct {
	dir    string
	mount  string // the programs; tests have others
	umount string
	secret func(ctx context.Context, name string) ([]byte, error)
	// timeout bounds mounting, and looking whether a share answers.
	timeout time.Duration

	mu   sync.Mutex
	busy map[string]*sync.Mutex // by directory: one mounts or unmounts it at a time
}

// bind is a directory of the host on its way into a machine.
type bind struct {
	from     string
	to       string
	readOnly bool
}

// shareTimeout is the time that shares usually have.
const shareTimeout = 20 * time.Second

// ready mounts what is not mounted and returns the directories to bind.
func (s *shares) ready(ctx context.Context, mounts []provider.Mount) ([]bind, error) {
	var out []bind
	for _, m := range mounts {
		from, err := s.reach(ctx, m.Share)
		if err != nil {
			return nil, err
		}
		out = append(out, bind{from: from, to: path.Clean(m.Path), readOnly: m.ReadOnly})
	}
	return out, nil
}

// lock is that of one share's directory: a server that does not answer holds up nobody else's mount.
func (s *shares) lock(dir string) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[dir] == nil {
		s.busy[dir] = new(sync.Mutex)
	}
	return s.busy[dir]
}

// reach makes one share reachable and returns its directory.
func (s *shares) reach(ctx context.Context, share shoal.Share) (string, error) {
	src, err := parseSource(share)
	if err != nil {
		return "", err
	}
	if src.kind == "" {
		return src.what, s.isDirectory(ctx, share, src.what)
	}
	dir := filepath.Join(s.dir, shareKey(share))
	lock := s.lock(dir)
	lock.Lock()
	defer lock.Unlock()
	mounted, err := s.mounted()
	if err != nil {
		return "", err
	}
	if slices.Contains(mounted, dir) {
		if err := s.isDirectory(ctx, share, dir); err == nil {
			return dir, nil
		}
		// It does not answer. A new mount may, if the server came back otherwise.
		if err := s.release(ctx, dir); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := s.mountShare(ctx, share, src, dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// mountShare runs mount(8). A share's credentials are handed over in a file that is removed afterwards.
func (s *shares) mountShare(ctx context.Context, share shoal.Share, src shareSource, dir string) error {
	options := []string{"nosuid", "nodev"}
	for k, v := range share.Options {
		o := k
		if v != "" {
			o += "=" + v
		}
		options = append(options, o)
	}
	slices.Sort(options[2:])
	if share.Credentials != nil {
		if s.secret == nil {
			return shareError(share, "its credentials %q cannot be had: there is no secret store", share.Credentials.Secret)
		}
		value, err := s.secret(ctx, share.Credentials.Secret)
		if err != nil {
			return shareError(share, "its credentials %q cannot be had: %w", share.Credentials.Secret, err)
		}
		file := dir + credentials
		if err := os.WriteFile(file, value, 0o600); err != nil {
			return err
		}
		defer os.Remove(file)
		options = append(options, "credentials="+file)
	}
	args := []string{"-t", src.kind, "-o", strings.Join(options, ","), src.what, dir}
	if err := s.bounded(ctx, s.mount, args...); err != nil {
		return shareError(share, "mounting %s failed: %w", src.what, err)
	}
	return nil
}

// credentials is how the file is called that is there while a share with credentials is mounted.
const credentials = ".credentials"

// shareError names the share and says what to do.
func shareError(share shoal.Share, format string, args ...any) error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): %w", share.Name, share.Source, fmt.Errorf(format, args...)).
		WithHint("try by hand on this host: mount or list %s", share.Source)
}

// isDirectory looks at a directory in a child, since looking may hang.
func (s *shares) isDirectory(ctx context.Context, share shoal.Share, dir string) error {
	if err := s.bounded(ctx, "test", "-d", dir); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return shareError(share, "%s does not answer within %s", dir, s.timeout)
		}
		return shareError(share, "%s is not a directory", dir)
	}
	return nil
}

// bounded runs a program for a limited time. One that waits for a dead server may survive being
// killed; it is left to end when the server answers.
func (s *shares) bounded(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // mount(8) has helpers
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil && out.Len() > 0 {
			text := out.String()
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(text[:min(len(text), 300)]))
		}
		return err
	case <-ctx.Done():
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		return ctx.Err()
	}
}

// mounted lists what is mounted below the shares' directory, without touching it.
func (s *shares) mounted() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 4 && filepath.Dir(f[4]) == s.dir {
			out = append(out, f[4])
		}
	}
	return out, nil
}

// release unmounts lazily: machines that still have it keep it, and nobody waits for the server.
func (s *shares) release(ctx context.Context, dir string) error {
	if err := s.bounded(ctx, s.umount, "-l", dir); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", dir, err)
	}
	return nil
}

// dropUnused unmounts the shares that are not among the keys in use. Those are asked for once the share's
// lock is had, so that no mount is under way: a machine that comes meanwhile mounts its shares anew.
func (s *shares) dropUnused(ctx context.Context, keys func() []string) error {
	mounted, err := s.mounted()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), credentials)
		lock := s.lock(filepath.Join(s.dir, name))
		if !lock.TryLock() {
			continue // on its way
		}
		if dir := filepath.Join(s.dir, e.Name()); name != e.Name() || !slices.Contains(keys(), name) {
			errs = append(errs, s.drop(ctx, dir, slices.Contains(mounted, dir)))
		}
		lock.Unlock()
	}
	return errors.Join(errs...)
}

// drop removes a share's directory, unmounting it first. Its lock is held.
func (s *shares) drop(ctx context.Context, dir string, mounted bool) error {
	if mounted {
		if err := s.release(ctx, dir); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// shareKey names a share's directory: it changes with whatever changes the mount.
func shareKey(share shoal.Share) string {
	sum := sha256.Sum256(fmt.Append(nil, share.Source, share.Options, share.Credentials))
	return string(share.Name) + "-" + hex.EncodeToString(sum[:4])
}

// shareKeys are those of the network shares among mounts.
func shareKeys(mounts []provider.Mount) []string {
	var out []string
	for _, m := range mounts {
		if !filepath.IsAbs(m.Share.Source) {
			out = append(out, shareKey(m.Share))
		}
	}
	return out
}

// shareSource is a share's source taken apart.
type shareSource struct {
	kind string // of mount -t; empty for a local directory
	what string // device as mount(8) wants it, or the directory
}

// parseSource reads a directory, nfs://host/path or smb://host/share.
func parseSource(share shoal.Share) (shareSource, error) {
	bad := func(why string) error {
		return shoal.Errorf(shoal.KindInvalid, "cannot use the source %q of share %s: %s", share.Source, share.Name, why).
			WithHint("write a directory (/srv/team), nfs://host/path or smb://host/share")
	}
	if filepath.IsAbs(share.Source) {
		if strings.ContainsRune(share.Source, 0) {
			return shareSource{}, bad("it is no path")
		}
		return shareSource{what: filepath.Clean(share.Source)}, nil
	}
	u, err := url.Parse(share.Source)
	if err != nil || u.Host == "" || u.Path == "" || u.Path == "/" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.HasPrefix(u.Host, "-") || strings.ContainsAny(u.Path, "\x00\n") {
		return shareSource{}, bad("it names no host and path")
	}
	for k, v := range share.Options {
		if k == "" || strings.ContainsAny(k+v, ",\x00\n") {
			return shareSource{}, bad(fmt.Sprintf("its option %q is not one option", k))
		}
	}
	switch u.Scheme {
	case "nfs":
		return shareSource{kind: "nfs", what: u.Host + ":" + u.Path}, nil
	case "smb":
		return shareSource{kind: "cifs", what: "//" + u.Host + u.Path}, nil
	default:
		return shareSource{}, bad(fmt.Sprintf("the local provider mounts no %q", u.Scheme))
	}
}
