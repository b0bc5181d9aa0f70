package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Where the programs are, as Debian and Fedora have them.
const (
	XRDP   = "/usr/sbin/xrdp"
	Sesman = "/usr/sbin/xrdp-sesman"
	keygen = "/usr/bin/xrdp-keygen"
	// SesmanPort is where xrdp-sesman listens on the loopback.
	SesmanPort = 3350
	// Account is the one under which xrdp runs; its package makes it.
	Account = "xrdp"
)

// Config is where things are. All fields are needed.
type Config struct {
	Root  string // of the machine's files: /
	Dir   string // for what is written here; root's, open to be passed by all: /run/shoal/desktop
	State string // a directory of root's on the machine's disk
	Agent string // the binary that is the door, and asks for passwords
	Name  string // of the machine
	// Account finds who Account is.
	Account func() (Owner, bool)
	// Start has init start what is configured.
	Start func() error
}

// Owner is the account of xrdp.
type Owner struct{ UID, GID int }

// Server is the xrdp of this machine.
type Server struct{ cfg Config }

// New makes a Server. It touches nothing.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// XRDPConfig is the file with which xrdp is to be started, once it is there.
func XRDPConfig(dir string) string { return filepath.Join(dir, "xrdp.ini") }

// SesmanConfig is the file for xrdp-sesman, which is there before xrdp's.
func SesmanConfig(dir string) string { return filepath.Join(dir, "sesman.ini") }

func (s *Server) etc(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root, "etc"}, elem...)...)
}

// Serve configures xrdp, has it started, and returns once it answers with TLS, or when ctx ends. An image in which
// something is missing is KindInvalid. Repeating it changes nothing.
func (s *Server) Serve(ctx context.Context, o api.DesktopOrder) error {
	owner, err := s.complete()
	if err != nil {
		return err
	}
	if err := s.places(owner); err != nil {
		return fmt.Errorf("cannot prepare remote desktops: %w", err)
	}
	if err := s.identity(o, owner); err != nil {
		return fmt.Errorf("cannot put the certificate of remote desktops in place: %w", err)
	}
	if err := s.oldKeys(ctx, owner); err != nil {
		return fmt.Errorf("cannot make the keys that xrdp wants: %w", err)
	}
	// xrdp's own file is the last: init starts it when it is there.
	for _, f := range []struct {
		path, text string
		mode       fs.FileMode
	}{
		{s.etc("pam.d", "xrdp-sesman"), s.pam(), 0o644},
		{filepath.Join(s.cfg.Dir, "startwm"), s.startwm(), 0o755},
		{SesmanConfig(s.cfg.Dir), s.sesmanText(), 0o644},
		{s.etc("xrdp", "sesman.ini"), s.sesmanText(), 0o644}, // what each desktop's channel server reads
		{XRDPConfig(s.cfg.Dir), s.xrdpText(o.Port), 0o644},
	} {
		if err := put(f.path, f.text, f.mode); err != nil {
			return fmt.Errorf("cannot configure remote desktops: %w", err)
		}
	}
	if err := s.cfg.Start(); err != nil {
		return err
	}
	return Probe(ctx, o.Port)
}

// complete says what the image lacks, or as whom xrdp runs.
func (s *Server) complete() (Owner, error) {
	missing := func(what, hint string) (Owner, error) {
		return Owner{}, shoal.Errorf(shoal.KindInvalid, "nobody can get a desktop here: the image has no %s", what).
			WithHint("%s, or take the rdp endpoint out of the pool", hint)
	}
	const install = "put xrdp and xorgxrdp into the image, or have the pool's setup command install them"
	for _, path := range []string{XRDP, Sesman, keygen} {
		if _, err := os.Stat(filepath.Join(s.cfg.Root, path)); err != nil {
			return missing(path, install)
		}
	}
	if s.xorg() == "" {
		return missing("Xorg", install)
	}
	if _, err := os.Stat(s.etc("X11", "xrdp", "xorg.conf")); err != nil {
		return missing("/etc/X11/xrdp/xorg.conf", install)
	}
	u, ok := s.cfg.Account()
	if !ok || u.UID == 0 {
		return missing("account "+Account, "make the account, as Debian's package xrdp does")
	}
	return u, nil
}

// xorg is where the X server itself is. What lies at /usr/bin is often a wrapper, which needs to be setuid.
func (s *Server) xorg() string {
	for _, path := range []string{"/usr/lib/xorg/Xorg", "/usr/libexec/Xorg", "/usr/bin/Xorg"} {
		if _, err := os.Stat(filepath.Join(s.cfg.Root, path)); err == nil {
			return path
		}
	}
	return ""
}

// socketDir is where X servers and xrdp meet. xorgxrdp makes its sockets there open to the directory's group alone,
// which is xrdp's: another user of the machine sees nobody's screen.
const socketDir = "run/xrdp/sockdir"

// places makes directories that the programs expect, with the rights that they should have.
func (s *Server) places(owner Owner) error {
	for _, d := range []struct {
		path     string
		uid, gid int
		mode     uint32
	}{
		{s.cfg.Dir, 0, 0, 0o755},
		{s.cfg.State, 0, 0, 0o700},
		{filepath.Join(s.cfg.Root, "run/xrdp"), owner.UID, owner.GID, 0o755},
		{filepath.Join(s.cfg.Root, socketDir), owner.UID, owner.GID, 0o3777},
		{filepath.Join(s.cfg.Root, "var/log/xrdp"), owner.UID, owner.GID, 0o750},
		// Were they not there, the first user's X server would make them hers.
		{filepath.Join(s.cfg.Root, "tmp/.X11-unix"), 0, 0, 0o1777},
		{filepath.Join(s.cfg.Root, "tmp/.ICE-unix"), 0, 0, 0o1777},
	} {
		if err := ownDir(d.path, d.uid, d.gid, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// oldKeys makes the keys of what RDP had before TLS. They are not used, but xrdp does not start without them; those that
// an image brings are known to all who have it, or are not readable.
func (s *Server) oldKeys(ctx context.Context, owner Owner) error {
	made, file := filepath.Join(s.cfg.State, "rsakeys.ini"), s.etc("xrdp", "rsakeys.ini")
	text, err := os.ReadFile(made)
	if err != nil {
		if out, err := exec.CommandContext(ctx, keygen, "xrdp", made).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", keygen, err, bytes.TrimSpace(out))
		}
		if text, err = os.ReadFile(made); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := put(file, string(text), 0o400); err != nil {
		return err
	}
	return os.Lchown(file, owner.UID, owner.GID)
}

// ownDir makes a directory with an owner and a mode. What a user has put in its place is put away.
func ownDir(path string, uid, gid int, mode uint32) error {
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return errors.Join(unix.Fchown(fd, uid, gid), unix.Fchmod(fd, mode))
}

// put replaces a file at once, if it differs.
func put(path, text string, mode fs.FileMode) error {
	old, err := os.ReadFile(path)
	if info, statErr := os.Lstat(path); err == nil && statErr == nil && info.Mode() == mode && bytes.Equal(old, []byte(text)) {
		return nil
	}
	tmp := path + ".shoal-new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
