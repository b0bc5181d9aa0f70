package main_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/local"
	"github.com/shoal-pool/shoal/provider"
)

// patience is how long a test waits for what takes a moment on a quiet host.
const patience = 3 * time.Minute

// world is a host with a provider of real machines and a control plane that is not one.
type world struct {
	t       testing.TB
	dir     string
	bin     string
	share   string
	ca      ssh.Signer
	control *fakeControl
	local   *local.Provider
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real machines need root, and are left out with -short")
	}
	w := &world{t: t, dir: t.TempDir()}
	// Below /tmp a directory for tests is root's alone; users of machines need not pass it, since shares are bound.
	w.bin, w.share = filepath.Join(w.dir, "bin"), filepath.Join(w.dir, "share")
	for _, d := range []string{w.bin, w.share, filepath.Join(w.dir, "control")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build(t, filepath.Join(w.bin, "shoal-agent"), "one")
	if err := os.WriteFile(filepath.Join(w.bin, "shoal"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = ssh.NewSignerFromKey(key); err != nil {
		t.Fatal(err)
	}
	w.control = newFakeControl(t, filepath.Join(w.dir, "control", "agent.sock"), w.ca)
	w.local, err = local.New(t.Context(), local.Config{Dir: filepath.Join(w.dir, "local"), ControlDir: filepath.Join(w.dir, "control"), BinDir: w.bin,
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func build(t testing.TB, to, version string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", to+".new", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the agent: %v: %s", err, out)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (w *world) close() {
	ctx := context.Background()
	o, err := w.local.Observe(ctx)
	if err != nil {
		w.t.Error(err)
	}
	for _, m := range o.Machines {
		if w.t.Failed() {
			for _, f := range []string{"init.log", "run.json"} {
				b, _ := os.ReadFile(filepath.Join(w.dir, "local", "machines", string(m.ID), f))
				w.t.Logf("%s of %s: %s", f, m.ID, b)
			}
		}
		if err := w.local.Delete(ctx, m.ID); err != nil {
			w.t.Error(err)
		}
	}
	w.until("the machines are gone", func() bool {
		o, err := w.local.Observe(ctx)
		return err == nil && len(o.Machines) == 0
	})
	if err := w.local.Close(ctx); err != nil {
		w.t.Error(err)
	}
}

// until waits for something that the real kernel does in its own time.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("in vain: until %s", what)
		}
	}
}

// machine makes a machine and waits until its agent says ready.
func (w *world) machine(id string, snap api.Snapshot) string {
	w.t.Helper()
	snap.Machine, snap.Pool = shoal.MachineID(id), "lab"
	w.control.want(snap)
	spec := provider.MachineSpec{ID: snap.Machine, Pool: "lab", Token: "token-" + id, Image: "host",
		Resources: shoal.Resources{CPUs: 2000, Memory: 1 << 30},
		Join:      provider.Join{Machine: snap.Machine, Pool: "lab", Token: "secret-" + id, Control: "unix:///run/shoal/control/agent.sock", Epoch: 1}}
	for _, m := range snap.Mounts {
		if m.Links {
			spec.Grace = time.Minute
		}
		spec.Mounts = append(spec.Mounts, provider.Mount{Share: shoal.Share{Name: "team", Source: w.share}, Path: m.Path, ReadOnly: m.ReadOnly})
	}
	if err := w.local.Create(w.t.Context(), spec); err != nil {
		w.t.Fatal(err)
	}
	w.until("machine "+id+" is ready", func() bool {
		b := w.control.boot(snap.Machine)
		if b.Error != "" {
			w.t.Fatalf("the boot failed: %s\n%s", b.Error, b.Log)
		}
		return b.Ready
	})
	addr := ""
	w.until("machine "+id+" has an address", func() bool {
		o, err := w.local.Observe(w.t.Context())
		for _, m := range o.Machines {
			if m.ID == snap.Machine {
				addr = m.Address
			}
		}
		return err == nil && addr != ""
	})
	return addr
}

// in runs a script as root in a machine.
func (w *world) in(id, script string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "runc", "--root", filepath.Join(w.dir, "local", "runc"), "exec", id, "/bin/sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("in %s: %s: %v: %s", id, script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// person writes a key with a certificate for ssh, and returns the options of the command.
func (w *world) person(principal string) []string {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, KeyId: principal, ValidPrincipals: []string{principal},
		ValidBefore: ssh.CertTimeInfinity, Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": "",
			"permit-agent-forwarding": "", "permit-X11-forwarding": "", "permit-user-rc": ""}}}
	if err := cert.SignCert(rand.Reader, w.ca); err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, "key-"+principal)
	for name, text := range map[string][]byte{file: pem.EncodeToMemory(block), file + "-cert.pub": ssh.MarshalAuthorizedKey(cert),
		file + ".known": []byte("@cert-authority * " + string(ssh.MarshalAuthorizedKey(w.ca.PublicKey())))} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return []string{"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + file + ".known",
		"-o", "HostKeyAlias=lab", "-o", "IdentitiesOnly=yes", "-i", file, "-o", "ConnectTimeout=60", "-o", "LogLevel=ERROR"}
}

// ssh runs a command as a user by the real client.
func (w *world) ssh(addr, user string, args ...string) (string, error) {
	w.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := append(w.person(user+"@lab"), "-p", port, user+"@"+host)
	out, err := exec.CommandContext(ctx, "ssh", append(all, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) must(addr, user string, args ...string) string {
	w.t.Helper()
	out, err := w.ssh(addr, user, args...)
	if err != nil {
		w.t.Fatalf("ssh as %s: %q: %v: %s", user, args, err, out)
	}
	return out
}

// fakeControl keeps what an agent said, and tells it what a test wants.
type fakeControl struct {
	ca  ssh.Signer
	srv *http.Server

	mu      sync.Mutex
	snaps   map[shoal.MachineID]api.Snapshot
	boots   map[shoal.MachineID]api.BootReport
	revs    map[shoal.MachineID]shoal.Rev
	acts    map[shoal.MachineID]api.Activity
	loads   map[shoal.MachineID]shoal.Load
	joins   map[shoal.MachineID][]api.AgentJoin
	reports []api.Report
	from    []shoal.MachineID // that sent them
	streams map[shoal.MachineID]chan api.Record
	opened  int
	relayed []*http.Request
}

func newFakeControl(t testing.TB, path string, ca ssh.Signer) *fakeControl {
	c := &fakeControl{ca: ca, snaps: map[shoal.MachineID]api.Snapshot{}, boots: map[shoal.MachineID]api.BootReport{}, revs: map[shoal.MachineID]shoal.Rev{},
		acts: map[shoal.MachineID]api.Activity{}, loads: map[shoal.MachineID]shoal.Load{}, joins: map[shoal.MachineID][]api.AgentJoin{},
		streams: map[shoal.MachineID]chan api.Record{}}
	c.listen(t, path)
	return c
}

func (c *fakeControl) listen(t testing.TB, path string) {
	t.Helper()
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/join", c.join)
	mux.HandleFunc("GET /agent/v1/stream", c.stream)
	mux.HandleFunc("POST /agent/v1/report", c.report)
	mux.HandleFunc("/agent/v1/user/", c.user)
	c.srv = &http.Server{Handler: mux}
	go c.srv.Serve(l)
	t.Cleanup(func() { c.srv.Close() })
}

func (c *fakeControl) want(s api.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Accounts.CAKeys = []string{string(ssh.MarshalAuthorizedKey(c.ca.PublicKey()))}
	c.snaps[s.Machine] = s
}

// send sends a record to a machine, once its stream is open.
func (c *fakeControl) send(id shoal.MachineID, r api.Record) {
	if r.Accounts != nil {
		r.Accounts.CAKeys = []string{string(ssh.MarshalAuthorizedKey(c.ca.PublicKey()))}
	}
	c.mu.Lock()
	ch := c.streams[id]
	s := c.snaps[id]
	if r.Accounts != nil {
		s.Accounts = *r.Accounts
	}
	if r.Run != nil {
		s.Tasks = append(s.Tasks, *r.Run)
	}
	c.snaps[id] = s
	c.mu.Unlock()
	ch <- r
}

func (c *fakeControl) boot(id shoal.MachineID) api.BootReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boots[id]
}

func (c *fakeControl) rev(id shoal.MachineID) shoal.Rev {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revs[id]
}

func (c *fakeControl) join(w http.ResponseWriter, r *http.Request) {
	var j api.AgentJoin
	if err := json.NewDecoder(r.Body).Decode(&j); err != nil || j.Token != "secret-"+string(j.Machine) {
		http.Error(w, "bad join", http.StatusUnauthorized)
		return
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(j.HostKey))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cert := &ssh.Certificate{Key: key, CertType: ssh.HostCert, KeyId: string(j.Machine), ValidPrincipals: []string{"lab"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, c.ca); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c.mu.Lock()
	c.joins[j.Machine] = append(c.joins[j.Machine], j)
	c.mu.Unlock()
	json.NewEncoder(w).Encode(api.AgentJoined{Token: "machine-" + string(j.Machine), HostCertificate: string(ssh.MarshalAuthorizedKey(cert))})
}

// who is the machine that sent a request.
func who(r *http.Request) shoal.MachineID {
	id, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer machine-")
	return shoal.MachineID(id)
}

func (c *fakeControl) stream(w http.ResponseWriter, r *http.Request) {
	id := who(r)
	ch := make(chan api.Record)
	c.mu.Lock()
	snap := c.snaps[id]
	c.streams[id] = ch
	c.opened++
	c.mu.Unlock()
	enc := json.NewEncoder(w)
	enc.Encode(api.Record{Snapshot: &snap})
	for {
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case rec := <-ch:
			enc.Encode(rec)
		}
	}
}

func (c *fakeControl) report(w http.ResponseWriter, r *http.Request) {
	var rep api.Report
	if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := who(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports, c.from = append(c.reports, rep), append(c.from, id)
	if rep.Boot != nil {
		c.boots[id] = *rep.Boot
	}
	if rep.Accounts != 0 {
		c.revs[id] = rep.Accounts
	}
	if rep.Activity != nil {
		c.acts[id] = *rep.Activity
	}
	if rep.Load != nil {
		c.loads[id] = *rep.Load
	}
	json.NewEncoder(w).Encode(api.ReportAnswer{})
}

// user answers what users ask through the relay; /events goes on until the caller has had enough.
func (c *fakeControl) user(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.relayed = append(c.relayed, r)
	c.mu.Unlock()
	fmt.Fprintf(w, "%s %s as %s from %s\n", r.Method, r.URL, r.Header.Get(api.UserHeader), who(r))
	for i := 0; strings.HasSuffix(r.URL.Path, "/events") && r.Context().Err() == nil; i++ {
		fmt.Fprintf(w, "data: %d\n\n", i)
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// people are two users who share a group, and one who does not.
func people(rev shoal.Rev) api.Accounts {
	user := func(name string, uid int) api.Account {
		return api.Account{Name: shoal.UserName(name), UID: uid, GID: uid, Home: "/shared/home/" + name, Shell: "/bin/bash", Principal: name + "@lab"}
	}
	return api.Accounts{Rev: rev, Users: []api.Account{user("alice", 20001), user("bob", 20002), user("carol", 20003)},
		Groups: []api.Group{{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "bob"}}}}
}

func team(rev shoal.Rev) api.Snapshot {
	return api.Snapshot{Accounts: people(rev), UserSlices: true, Resources: shoal.Resources{CPUs: 2000, Memory: 1 << 30}, Heartbeat: shoal.Duration(time.Minute),
		Mounts: []api.AgentMount{{Path: "/shared", Homes: true, GroupDirs: []shoal.GroupDir{{Path: "projects/{group}", Mode: "2770"}}}}}
}
