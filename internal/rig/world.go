package rig

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
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
	"github.com/shoal-pool/shoal/internal/need"
)

// World is a server of one's own, made of the built binaries, with users who all have the same key.
type World struct {
	Bin    string   // where shoal and shoal-agent lie
	Dir    string   // scratch
	Data   string   // the server's data directory
	Share  string   // the source of the share "team", mounted at /shared by Pool
	Port   string   // of the gateway
	API    string   // port of the API for tokens
	HTTPS  string   // port of the gateway for browsers
	Flags  []string // further ones of serve
	Server *exec.Cmd
	Client *client.Client // with the rights of root on the host
	Signer ssh.Signer     // the users' key
}

// New starts a server with the binaries of bin and further flags, on a fresh directory below dir.
func New(ctx context.Context, bin, dir string, flags ...string) (*World, error) {
	w := &World{Bin: bin, Dir: dir, Flags: flags, Data: filepath.Join(dir, "data"), Share: filepath.Join(dir, "share")}
	if err := os.MkdirAll(filepath.Join(w.Share, "home"), 0o755); err != nil {
		return nil, err
	}
	if err := w.makeKey(); err != nil {
		return nil, err
	}
	var err error
	if w.API, err = FreePort(); err != nil {
		return nil, err
	}
	if w.Port, err = FreePort(); err != nil {
		return nil, err
	}
	if w.HTTPS, err = FreePort(); err != nil {
		return nil, err
	}
	if w.Client, err = client.New(client.Options{Socket: filepath.Join(w.Data, "shoal.sock")}); err != nil {
		return nil, err
	}
	return w, w.Start(ctx)
}

// Start starts the server, on what a former one left, and waits until it answers. Its log is appended
// to serve.log.
func (w *World) Start(ctx context.Context) (err error) {
	if w.Server, err = w.Launch(); err != nil {
		return err
	}
	return Until(ctx, 3*time.Minute, "the server answers", func() (bool, error) {
		_, err := w.Client.Pools(ctx)
		return err == nil, nil
	})
}

// Launch starts a server like Start and does not wait: it may stand by.
func (w *World) Launch() (*exec.Cmd, error) {
	server := exec.Command(filepath.Join(w.Bin, "shoal"), append([]string{"serve", "--data", w.Data,
		"--listen", "127.0.0.1:" + w.API, "--ssh-listen", "127.0.0.1:" + w.Port, "--https-listen", "127.0.0.1:" + w.HTTPS}, w.Flags...)...)
	log, err := os.OpenFile(filepath.Join(w.Dir, "serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	return server, server.Start()
}

// Kill ends the server with SIGKILL. What it left is for Start to find.
func (w *World) Kill() error {
	if err := w.Server.Process.Kill(); err != nil {
		return err
	}
	_ = w.Server.Wait() // killed
	return nil
}

// Close ends the jobs, deletes the machines with whoever is on them and the pools, and stops the server.
func (w *World) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var errs []error
	pools, err := w.Client.Pools(ctx)
	errs = append(errs, err)
	for _, p := range pools {
		errs = append(errs, w.cancelJobs(ctx, p.Name), w.Client.DeletePool(ctx, p.Name))
		machines, err := w.Machines(ctx, string(p.Name))
		errs = append(errs, err)
		for _, m := range machines {
			_ = w.Client.DeleteMachine(ctx, m.ID, true) // one that goes by itself is as good
		}
	}
	errs = append(errs, Until(ctx, 2*time.Minute, "the pools have gone", func() (bool, error) {
		left, err := w.Client.Pools(ctx)
		return len(left) == 0, err
	}))
	return errors.Join(append(errs, w.Server.Process.Signal(syscall.SIGTERM), w.Server.Wait())...)
}

func (w *World) cancelJobs(ctx context.Context, pool shoal.PoolName) error {
	jobs, err := w.Client.Jobs(ctx, client.JobQuery{Pool: pool, Limit: 1000})
	errs := []error{err}
	for _, j := range jobs {
		if !j.State.Ended() {
			_, err := w.Client.CancelJob(ctx, j.ID)
			errs = append(errs, err)
			_, err = w.Client.WaitJob(ctx, j.ID)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// makeKey makes the users' key, in OpenSSH's files.
func (w *World) makeKey() error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	if w.Signer, err = ssh.NewSignerFromKey(private); err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "rig")
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.Key(), pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	return os.WriteFile(w.Key()+".pub", ssh.MarshalAuthorizedKey(p), 0o644)
}

// Key is the file of the users' private key; the public one lies beside it.
func (w *World) Key() string { return filepath.Join(w.Dir, "key") }

// FreePort finds a port of loopback that nobody listens at, and keeps it from others until this process ends: servers come and
// go there.
func FreePort() (string, error) {
	port, _, err := need.HoldPort()
	return port, err
}

// Apply applies the share "team", users u1 to un, and further documents.
func (w *World) Apply(ctx context.Context, users int, more string) error {
	public, err := os.ReadFile(w.Key() + ".pub")
	if err != nil {
		return err
	}
	var doc bytes.Buffer
	fmt.Fprintf(&doc, "kind: Share\nname: team\nsource: %s\ngroupDirs: [{path: \"projects/{group}\"}]\n", w.Share)
	for i := range users {
		fmt.Fprintf(&doc, "---\nkind: User\nname: u%d\nkeys: [%q]\n", i+1, strings.TrimSpace(string(public)))
	}
	doc.WriteString(more)
	file := filepath.Join(w.Dir, "team.yaml")
	if err := os.WriteFile(file, doc.Bytes(), 0o644); err != nil {
		return err
	}
	_, err = w.Shoal(ctx, "apply", "-f", file)
	return err
}

// Pool is a document of a pool of the image host, with the share at /shared and homes on it.
func Pool(name, uses, machine, size string, seats int, more string) string {
	return fmt.Sprintf("---\nkind: Pool\nname: %s\nprovider: local\nimage: host\nuses: [%s]\nmachine: %s\nsize: %s\nseats: %d\n"+
		"mounts: [{share: team, path: /shared}]\nhome: {share: team, path: \"home/{user}\"}\n%s", name, uses, machine, size, seats, more)
}

// Shoal runs the command line as root of this host, and returns what it printed.
func (w *World) Shoal(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, "shoal"), args...)
	cmd.Env = append(os.Environ(), "SHOAL_DATA="+w.Data)
	return Output(cmd)
}

// AsUser runs the command line with a token of a user's.
func (w *World) AsUser(ctx context.Context, user shoal.UserName, args ...string) (string, error) {
	token := filepath.Join(w.Dir, string(user)+".token")
	if _, err := os.Stat(token); errors.Is(err, os.ErrNotExist) {
		if err := w.signIn(ctx, user, token); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, "shoal"), append([]string{"--server", "http://127.0.0.1:" + w.API, "--token-file", token}, args...)...)
	return Output(cmd)
}

// ClientAs is a client with a token of a user's.
func (w *World) ClientAs(ctx context.Context, user shoal.UserName) (*client.Client, error) {
	if _, err := w.AsUser(ctx, user, "job", "list", "--limit", "1"); err != nil { // signs in
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(w.Dir, string(user)+".token"))
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Server: "http://127.0.0.1:" + w.API, Token: strings.TrimSpace(string(token))})
}

// signIn stores an API token of a user's in a file.
func (w *World) signIn(ctx context.Context, user shoal.UserName, file string) error {
	const password = "correct horse battery staple"
	if err := w.Client.SetPassword(ctx, user, password); err != nil {
		return err
	}
	answer, err := w.Client.Login(ctx, api.LoginRequest{User: user, Password: password})
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(answer.Token), 0o600)
}

// SSH makes a command of OpenSSH's client to the gateway; login is USER, USER+POOL and so on.
func (w *World) SSH(ctx context.Context, login string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ssh", append(w.SSHOptions(), append([]string{"-p", w.Port, login + "@127.0.0.1"}, args...)...)...)
}

// SSHOptions are those that keep OpenSSH's clients from the files and questions of whoever runs this.
func (w *World) SSHOptions() []string {
	return []string{"-F", "none", "-i", w.Key(), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=" + filepath.Join(w.Dir, "known_hosts")}
}

// Output runs a command and returns what it wrote; what it wrote to stderr is in the error.
func Output(cmd *exec.Cmd) (string, error) {
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(trouble.String()))
	}
	return out.String(), nil
}

// Until waits for something of the real world to be so.
func Until(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
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

// Ready waits until a pool has n ready machines, and returns them.
func (w *World) Ready(ctx context.Context, pool string, n int, limit time.Duration) ([]shoal.Machine, error) {
	var list []shoal.Machine
	err := Until(ctx, limit, fmt.Sprintf("%d machines of %s are ready", n, pool), func() (bool, error) {
		all, err := w.Machines(ctx, pool)
		list = list[:0]
		for _, m := range all {
			if m.State == shoal.MachineReady {
				list = append(list, m)
			}
		}
		return len(list) >= n, err
	})
	return list, err
}

// Machines lists a pool's machines.
func (w *World) Machines(ctx context.Context, pool string) ([]shoal.Machine, error) {
	return w.Client.Machines(ctx, client.MachineQuery{Pool: shoal.PoolName(pool)})
}

// Empty makes a pool have no machine, waits for it, and gives it back to the autoscaler.
func (w *World) Empty(ctx context.Context, pool string) error {
	if _, err := w.Shoal(ctx, "pool", "scale", pool, "--size", "0"); err != nil {
		return err
	}
	err := Until(ctx, 2*time.Minute, "pool "+pool+" is empty", func() (bool, error) {
		all, err := w.Machines(ctx, pool)
		return len(all) == 0, err
	})
	if err != nil {
		return err
	}
	_, err = w.Shoal(ctx, "pool", "scale", pool, "--auto")
	return err
}
