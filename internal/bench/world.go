package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// world is a server of the bench's own, with users who all have the same key.
type world struct {
	b      *bench
	dir    string
	data   string
	port   string // of the gateway
	api    string // port of the API for tokens
	server *exec.Cmd
	client *client.Client
	signer ssh.Signer
}

// newWorld starts a server on a fresh directory.
func newWorld(ctx context.Context, b *bench, name string) (*world, error) {
	w := &world{b: b, dir: filepath.Join(b.dir, name)}
	w.data = filepath.Join(w.dir, "data")
	if err := os.MkdirAll(filepath.Join(w.dir, "share", "home"), 0o755); err != nil {
		return nil, err
	}
	if err := w.makeKey(); err != nil {
		return nil, err
	}
	apiPort, sshPort, err := freePorts()
	if err != nil {
		return nil, err
	}
	w.port, w.api = sshPort, apiPort
	w.server = exec.Command(filepath.Join(b.bin, "shoal"), "serve", "--data", w.data,
		"--listen", "127.0.0.1:"+apiPort, "--ssh-listen", "127.0.0.1:"+sshPort)
	log, err := os.Create(filepath.Join(w.dir, "serve.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	w.server.Stdout, w.server.Stderr = log, log
	w.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := w.server.Start(); err != nil {
		return nil, err
	}
	if w.client, err = client.New(client.Options{Socket: filepath.Join(w.data, "shoal.sock")}); err != nil {
		return nil, err
	}
	return w, w.until(ctx, time.Minute, "the server answers", func() (bool, error) {
		_, err := w.client.Pools(ctx)
		return err == nil, nil
	})
}

// makeKey makes the users' key, in OpenSSH's files.
func (w *world) makeKey() error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	if w.signer, err = ssh.NewSignerFromKey(private); err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "bench")
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.key(), pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	return os.WriteFile(w.key()+".pub", ssh.MarshalAuthorizedKey(p), 0o644)
}

func (w *world) key() string { return filepath.Join(w.dir, "key") }

// freePorts finds two ports that nobody listens on.
func freePorts() (string, string, error) {
	var ports [2]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
	}
	return ports[0], ports[1], nil
}

// apply applies the world's share, users u1 to un and pools.
func (w *world) apply(ctx context.Context, users int, pools string) error {
	public, err := os.ReadFile(w.key() + ".pub")
	if err != nil {
		return err
	}
	var doc bytes.Buffer
	fmt.Fprintf(&doc, "kind: Share\nname: team\nsource: %s\n", filepath.Join(w.dir, "share"))
	for i := range users {
		fmt.Fprintf(&doc, "---\nkind: User\nname: u%d\nkeys: [%q]\n", i+1, strings.TrimSpace(string(public)))
	}
	doc.WriteString(pools)
	file := filepath.Join(w.dir, "team.yaml")
	if err := os.WriteFile(file, doc.Bytes(), 0o644); err != nil {
		return err
	}
	_, err = w.shoal(ctx, "apply", "-f", file)
	return err
}

// pool is a document of a pool with homes on the share.
func pool(name, uses, machine, size string, seats int, more string) string {
	return fmt.Sprintf("---\nkind: Pool\nname: %s\nprovider: local\nimage: host\nuses: [%s]\nmachine: %s\nsize: %s\nseats: %d\n"+
		"mounts: [{share: team, path: /shared}]\nhome: {share: team, path: \"home/{user}\"}\n%s", name, uses, machine, size, seats, more)
}

// shoal runs the command line as root of this host.
func (w *world) shoal(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.b.bin, "shoal"), args...)
	cmd.Env = append(os.Environ(), "SHOAL_DATA="+w.data)
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(trouble.String()))
	}
	return out.String(), nil
}

// until waits for something of the server's to be so.
func (w *world) until(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := is()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain until %s", limit, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ready waits until a pool has n ready machines, and returns them.
func (w *world) ready(ctx context.Context, pool string, n int, limit time.Duration) ([]shoal.Machine, error) {
	var list []shoal.Machine
	err := w.until(ctx, limit, fmt.Sprintf("%d machines of %s are ready", n, pool), func() (bool, error) {
		all, err := w.client.Machines(ctx, client.MachineQuery{Pool: shoal.PoolName(pool)})
		if err != nil {
			return false, err
		}
		list = list[:0]
		for _, m := range all {
			if m.State == shoal.MachineReady {
				list = append(list, m)
			}
		}
		return len(list) >= n, nil
	})
	return list, err
}

// empty makes a pool have no machine, and waits for it.
func (w *world) empty(ctx context.Context, pool string) error {
	if _, err := w.shoal(ctx, "pool", "scale", pool, "--size", "0"); err != nil {
		return err
	}
	err := w.until(ctx, 2*time.Minute, "pool "+pool+" is empty", func() (bool, error) {
		all, err := w.client.Machines(ctx, client.MachineQuery{Pool: shoal.PoolName(pool)})
		return len(all) == 0, err
	})
	if err != nil {
		return err
	}
	_, err = w.shoal(ctx, "pool", "scale", pool, "--auto")
	return err
}

// close deletes the pools and stops the server.
func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var errs []error
	pools, err := w.client.Pools(ctx)
	errs = append(errs, err)
	for _, p := range pools {
		_, err := w.shoal(ctx, "pool", "delete", string(p.Name), "--wait")
		errs = append(errs, err)
	}
	errs = append(errs, w.server.Process.Signal(syscall.SIGTERM), w.server.Wait())
	return errors.Join(errs...)
}

// signIn stores an API token of a user's in a file.
func (w *world) signIn(ctx context.Context, user shoal.UserName, file string) error {
	const password = "correct horse battery staple"
	if err := w.client.SetPassword(ctx, user, password); err != nil {
		return err
	}
	answer, err := w.client.Login(ctx, api.LoginRequest{User: user, Password: password})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(answer.Token), 0o600)
}
