package hub

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	python "github.com/shoal-pool/shoal/sdk/python"
)

// hubID is the account and group number of the hub: no user of Shoal's has it, and no package of Debian's.
const hubID = 60990

// Account is the number of the account that JupyterHub runs as.
func Account() int { return hubID }

// inside is where the hub sees DIR.
const inside = "/mnt"

//go:embed jupyterhub_config.py
var configText embed.FS

func (h *Hub) path(elem ...string) string {
	return filepath.Join(append([]string{h.cfg.Dir}, elem...)...)
}

// makeDir makes DIR, through which the hub comes to what is its own or to be read by it. The data directory
// above it is closed to everybody.
func (h *Hub) makeDir() error { return makeDir(h.cfg.Dir, 0o711, 0) }

func makeDir(dir string, mode os.FileMode, id int) error {
	return errors.Join(os.MkdirAll(dir, mode), os.Lchown(dir, id, id), os.Chmod(dir, mode))
}

// layout makes the directories and writes what the hub reads.
func (h *Hub) layout(front, routes, machines string) error {
	err := errors.Join(makeDir(h.path("config"), 0o755, 0), makeDir(h.path("lib"), 0o755, 0), makeDir(h.path("lib", "shoal_jupyterhub"), 0o755, 0),
		makeDir(h.path("state"), 0o700, hubID))
	if err != nil {
		return err
	}
	sources, err := fs.Glob(python.Hub, "shoal_jupyterhub/*.py")
	if err != nil {
		return err
	}
	for _, name := range sources {
		text, err := python.Hub.ReadFile(name)
		if err == nil {
			err = write(h.path("lib", name), text, 0o644, 0)
		}
		if err != nil {
			return err
		}
	}
	config, err := h.config(front, routes, machines)
	if err != nil {
		return err
	}
	return errors.Join(write(h.path("config", "jupyterhub_config.py"), config, 0o644, 0),
		write(h.path("config", "shoal.token"), []byte(h.cfg.Token), 0o600, hubID),
		write(h.path("config", "routes.token"), []byte(h.cfg.RoutesToken), 0o600, hubID))
}

// write puts a file in the place of another, and never into one that is read at the time.
func write(path string, text []byte, mode os.FileMode, id int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // where it was not renamed
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Chown(id, id), f.Close())
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func (h *Hub) config(front, routes, machines string) ([]byte, error) {
	t, err := template.New("jupyterhub_config.py").Funcs(template.FuncMap{"py": quote}).ParseFS(configText, "jupyterhub_config.py")
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	err = t.Execute(&out, map[string]any{"Front": front, "Public": h.cfg.Public(), "API": h.cfg.API(),
		"Routes": routes, "Machines": machines, "AppsDomain": h.cfg.AppsDomain, "Inside": inside})
	return []byte(out.String()), err
}

// quote writes a text as Python does: JSON's strings are Python's too.
func quote(text string) (string, error) {
	b, err := json.Marshal(text)
	return string(b), err
}

// usualPort is where hubs listen; of the bridge's address it is hardly ever taken.
const usualPort = 8081

// machinesPort is where machines find the hub: chosen once, since notebook servers that run know it.
func (h *Hub) machinesPort() (int, error) {
	text, err := os.ReadFile(h.path("port"))
	if errors.Is(err, fs.ErrNotExist) {
		return usualPort, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 || n > 65535 {
		return usualPort, nil // cut off by a crash
	}
	return n, nil
}

// listenForMachines opens their door. Another program may have taken the port meanwhile.
func (h *Hub) listenForMachines(ctx context.Context) (net.Listener, error) {
	if h.cfg.Machines == nil {
		return nil, nil
	}
	port, err := h.machinesPort()
	if err != nil {
		return nil, err
	}
	l, err := h.cfg.Machines(ctx, port)
	if err != nil {
		free, err2 := h.cfg.Machines(ctx, 0)
		if err2 != nil {
			return nil, fmt.Errorf("cannot listen for machines: %w", err)
		}
		l = free
		h.cfg.Log.Warn("notebook servers that run do not find JupyterHub any more: its port for machines is taken", "port", port, "err", err)
	}
	_, now, err := net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = write(h.path("port"), []byte(now+"\n"), 0o600, 0)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
