package passes

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Dir is where passes are kept on a machine.
const Dir = "/run/shoal/passes"

// Mark is the variable by which what belongs to an attempt is known.
const Mark = "SHOAL_SCRATCH"

// Desk gives out passes and takes them back.
type Desk struct{ dir string }

// At is the desk of a directory. It touches nothing.
func At(dir string) *Desk { return &Desk{dir} }

// KeysFile is sshd's AuthorizedKeysFile.
func (d *Desk) KeysFile() string { return filepath.Join(d.dir, "keys", "%u") }

// ClientFiles is what ssh's configuration must include.
func (d *Desk) ClientFiles() string { return filepath.Join(d.dir, "client", "*.conf") }

// Pass opens a user's account on this machine to the nodes of one of her attempts.
type Pass struct {
	Name    string // of the attempt, as its files are named
	User    string
	Key     string // the public key, authorized_keys form
	KeyFile string // where the private key lies on this machine
	Scratch string // what Mark says inside the attempt
	Nodes   []Node // all of the attempt, this one too
}

// Node is a node of an attempt as the others reach it.
type Node struct {
	Name    string
	Address string // host:port of its sshd
	HostKey string // authorized_keys form
}

// Give puts a pass into effect.
func (d *Desk) Give(p Pass) error {
	if err := d.give(p); err != nil {
		return fmt.Errorf("cannot let its nodes log in to each other: %w", err)
	}
	return nil
}

func (d *Desk) give(p Pass) error {
	if !plain(p.Name) || !plain(p.User) {
		return shoal.Errorf(shoal.KindInvalid, "%q of user %q is not a name", p.Name, p.User)
	}
	line, err := p.line()
	if err != nil {
		return err
	}
	config, known, err := p.client(filepath.Join(d.dir, "client", p.Name+".known"))
	if err != nil {
		return err
	}
	for _, sub := range []struct {
		path string
		mode fs.FileMode
	}{{"", 0o755}, {"live", 0o700}, {"keys", 0o755}, {"client", 0o755}} {
		path := filepath.Join(d.dir, sub.path)
		if err := os.MkdirAll(path, sub.mode); err != nil {
			return err
		}
		if err := os.Chmod(path, sub.mode); err != nil { // whatever the umask
			return err
		}
	}
	err = d.locked(func() error {
		dir := filepath.Join(d.dir, "live", p.User) // which goes with the last pass in it
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := put(filepath.Join(dir, p.Name), line, 0o600); err != nil {
			return err
		}
		return d.gather(p.User)
	})
	if err == nil {
		err = put(filepath.Join(d.dir, "client", p.Name+".known"), known, 0o644)
	}
	if err == nil {
		err = put(filepath.Join(d.dir, "client", p.Name+".conf"), config, 0o644)
	}
	return err
}

// Take ends a pass. One that is not there has ended.
func (d *Desk) Take(user, name string) error {
	if !plain(name) || !plain(user) {
		return nil // none was given
	}
	if _, err := os.Lstat(filepath.Join(d.dir, "live", user, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := d.locked(func() error {
		if err := remove(filepath.Join(d.dir, "live", user, name)); err != nil {
			return err
		}
		return d.gather(user)
	})
	for _, end := range []string{".conf", ".known"} {
		err = errors.Join(err, remove(filepath.Join(d.dir, "client", name+end)))
	}
	if err != nil {
		return fmt.Errorf("its key is still good on this machine: %w", err)
	}
	return nil
}

// Of returns the attempt of a user that a key is for. key is a public key as PAM is told of it, "ssh-ed25519 AAAA…".
func (d *Desk) Of(user, key string) (name string, ok bool) {
	kind, blob, _ := strings.Cut(strings.TrimSpace(key), " ")
	if !plain(user) || kind == "" || blob == "" {
		return "", false
	}
	entries, err := os.ReadDir(filepath.Join(d.dir, "live", user))
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(d.dir, "live", user, e.Name()))
		if err != nil || e.Name()[0] == '.' {
			continue // it has just been taken back, or is not there yet
		}
		if strings.Contains(string(b), " "+kind+" "+blob+" ") {
			return e.Name(), true
		}
	}
	return "", false
}

// line is the pass as sshd reads it.
func (p Pass) line() (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(p.Key))
	if err != nil {
		return "", shoal.Errorf(shoal.KindInvalid, "its public key cannot be read: %w", err)
	}
	var from []string
	for _, n := range p.Nodes {
		host, _, err := n.reach()
		if err != nil {
			return "", err
		}
		from = append(from, host)
	}
	if len(from) == 0 {
		return "", shoal.Errorf(shoal.KindInvalid, "it has no nodes")
	}
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	return fmt.Sprintf("restrict,pty,from=\"%s\",environment=\"%s=%s\" %s %s\n", strings.Join(from, ","), Mark, p.Scratch, text, p.Name), nil
}

// reach is a node's address. sshd compares addresses only, so a name is of no use.
func (n Node) reach() (host, port string, err error) {
	at, err := netip.ParseAddrPort(n.Address)
	if err != nil || at.Addr().Zone() != "" || !plain(n.Name) {
		return "", "", shoal.Errorf(shoal.KindInvalid, "node %q has no address that others could come from: %q", n.Name, n.Address)
	}
	return at.Addr().String(), strconv.Itoa(int(at.Port())), nil
}

// client is what ssh is told: how each node is reached, for the user and inside the attempt only, and what it proves
// itself with.
func (p Pass) client(knownFile string) (config, known string, err error) {
	var c, k strings.Builder
	for _, n := range p.Nodes {
		host, port, err := n.reach()
		if err != nil {
			return "", "", err
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(n.HostKey))
		if err != nil {
			return "", "", shoal.Errorf(shoal.KindInvalid, "the host key of node %s cannot be read: %w", n.Name, err)
		}
		fmt.Fprintf(&k, "%s %s", n.Name, ssh.MarshalAuthorizedKey(key))
		fmt.Fprintf(&c, `Match localuser %s originalhost %s,%s exec "test x$%s = x%s"
  HostName %s
  Port %s
  User %s
  HostKeyAlias %s
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  ConnectTimeout 20
  ServerAliveInterval 20
  LogLevel ERROR
`, p.User, n.Name, host, Mark, p.Scratch, host, port, p.User, n.Name, knownFile, p.KeyFile)
	}
	return c.String(), k.String(), nil
}

// gather puts the file of a user's keys together.
func (d *Desk) gather(user string) error {
	dir := filepath.Join(d.dir, "live", user)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var all strings.Builder
	for _, e := range entries {
		if e.Name()[0] == '.' { // of one who was killed
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		all.Write(b)
	}
	if all.Len() == 0 {
		return errors.Join(remove(filepath.Join(d.dir, "keys", user)), remove(dir))
	}
	return put(filepath.Join(d.dir, "keys", user), all.String(), 0o644)
}

// locked calls f while nobody else changes the passes.
func (d *Desk) locked(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(d.dir, "live", ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and unlocks
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return err
	}
	return f()
}

// put replaces a file at once. Nothing takes a file whose name begins with a dot for one of those that count.
func put(path, text string, mode fs.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// plain reports whether a name is harmless in paths and in configuration.
func plain(name string) bool {
	if name == "" || len(name) > 128 || name[0] == '.' || name[0] == '-' {
		return false
	}
	for _, c := range []byte(name) {
		ok := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.'
		if !ok {
			return false
		}
	}
	return true
}
