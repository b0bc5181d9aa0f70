package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// balancer leads who connects to a socket to the like of whichever server is ready, as a load balancer does.
type balancer struct {
	t       testing.TB
	mu      sync.Mutex
	servers []*rig.World
}

// know adds a server.
func (b *balancer) know(s *rig.World) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = append(b.servers, s)
}

// ready returns the server that is, once there is one; nil: it took too long.
func (b *balancer) ready() *rig.World {
	b.mu.Lock()
	servers := slices.Clone(b.servers)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // it is asked at the end, too
	defer cancel()
	found := make(chan *rig.World, len(servers))
	for _, s := range servers {
		go func() {
			for !isReady(ctx, s) && ctx.Err() == nil {
				time.Sleep(50 * time.Millisecond)
			}
			found <- s
		}()
	}
	s := <-found
	if ctx.Err() != nil {
		return nil
	}
	return s
}

func isReady(ctx context.Context, s *rig.World) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+s.API+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// listen takes connections at a socket to what of a server's data directory is named so.
func (b *balancer) listen(path, name string) {
	b.t.Helper()
	b.listenAt("unix", path, func(s *rig.World) (net.Conn, error) { return net.Dial("unix", filepath.Join(s.Data, name)) })
}

// listenAt takes connections at an address to wherever a server is reached.
func (b *balancer) listenAt(network, address string, reach func(*rig.World) (net.Conn, error)) {
	b.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.lead(c, reach)
		}
	}()
}

func (b *balancer) lead(c net.Conn, reach func(*rig.World) (net.Conn, error)) {
	defer c.Close()
	s := b.ready()
	if s == nil {
		return
	}
	to, err := reach(s)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, c)
		_ = to.Close()
	}()
	_, _ = io.Copy(c, to)
}

// onProgram is a world whose machines come from an executable, the example, which servers on several hosts could share. Machines and people find
// whichever server leads.
type onProgram struct {
	*world
	program, trouble string // trouble is a script that the executable runs first, if it is there
	lead             string // the socket of whoever leads
	servers          *balancer
}

func newOnProgram(t *testing.T, flags ...string) *onProgram {
	t.Helper()
	return newOnProgramWith(t, "exec $machines once\n", flags...)
}

// newOnProgramWith runs the example, $machines, by a script.
func newOnProgramWith(t *testing.T, script string, flags ...string) *onProgram {
	t.Helper()
	needHost(t)
	dir := newDir(t)
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "provider", "runc-machines"))
	if err != nil {
		t.Fatal(err)
	}
	p := &onProgram{program: filepath.Join(dir, "machines"), trouble: filepath.Join(dir, "trouble"), lead: filepath.Join(dir, "lead.sock"), servers: &balancer{t: t}}
	wrapper := fmt.Sprintf("#!/bin/sh\n[ ! -e %[1]s/trouble ] || . %[1]s/trouble\nexport SHOAL_PROVIDER_DIR=%[1]s/kept SHOAL_CONTROL_DIR=%[1]s/control\nmachines=%[1]s/runc-machines\n%[2]s", dir, script)
	for _, d := range []string{"kept", "control"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string][]byte{p.program: []byte(wrapper), filepath.Join(dir, "runc-machines"): example} {
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.servers.listen(filepath.Join(dir, "control", "agent.sock"), "control/agent.sock")
	p.servers.listen(p.lead, "shoal.sock")
	p.world = newWorldIn(t, dir, append(flags, "--provider", p.program)...)
	p.servers.know(p.World)
	if p.Client, err = client.New(client.Options{Socket: p.lead}); err != nil {
		t.Fatal(err)
	}
	return p
}

// pool is a document of the pool "lab" of the executable's machines.
func (p *onProgram) pool(size, more string) string {
	return fmt.Sprintf("---\nkind: Pool\nname: lab\nprovider: exec:%s\nimage: none\nuses: [interactive, batch]\nmachine: {cpus: 2, memory: 512MiB}\nsize: %s\nseats: 4\n"+
		"mounts: [{share: team, path: /shared}]\nhome: {share: team, path: \"home/{user}\"}\n%s", p.program, size, more+smallSeats)
}

// elsewhere is a second server as on another host: with a data directory and ports of its own, and the keys of the first.
func (p *onProgram) elsewhere() *rig.World {
	p.t.Helper()
	other := *p.World
	other.Data = filepath.Join(p.Dir, "elsewhere")
	for _, dir := range []string{"keys", "tls"} {
		if err := os.MkdirAll(other.Data, 0o700); err != nil {
			p.t.Fatal(err)
		}
		if _, err := rig.Output(exec.Command("cp", "-a", filepath.Join(p.Data, dir), other.Data)); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, port := range []*string{&other.API, &other.Port, &other.HTTPS} {
		var err error
		if *port, err = rig.FreePort(); err != nil {
			p.t.Fatal(err)
		}
	}
	return &other
}

// sessionOf is the only session of a user.
func (w *world) sessionOf(user shoal.UserName) shoal.Session {
	w.t.Helper()
	all, err := w.Client.Sessions(w.t.Context(), client.SessionQuery{User: user})
	if err != nil || len(all) != 1 {
		w.t.Fatalf("%s has sessions %+v, %v", user, all, err)
	}
	return all[0]
}

// Two servers on two hosts share a database, and machines that both of them reach. The one that leads is frozen until long after the other has
// taken over, and goes on then: it carries the connections that go through it to their ends, does nothing else, and ends. No session ends, no
// job is lost or run twice.
func TestLeaderElsewhere(t *testing.T) {
	t.Parallel()
	_, address := database(t)
	p := newOnProgram(t, "--database", address, "--linger", "10m")
	p.apply(lifeUsers, p.pool("{min: 1, max: 1}", ""))
	l := newLife(p.world)
	l.lead = p.lead
	stop := l.begin(l.submissions)
	defer stop()
	other := p.elsewhere()
	p.servers.know(other)
	for range repeat(t, 1, 34, "takeovers") {
		other.Server = p.launch(other)
		l.more("jobs")
		former := p.World
		connection := []*talk{p.talk("u2+lab", 4)}
		all(t, connection, func(_ int, k *talk) error { return k.hear("ready") })
		session := p.sessionOf("u2")
		if err := former.Server.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		frozen := time.Now()
		p.World = other
		p.answers(frozen)
		if host := p.ssh("u3+lab", "hostname"); host != string(session.Machine) {
			t.Errorf("there is machine %s beside %s", host, session.Machine)
		}
		time.Sleep(time.Until(frozen.Add(time.Duration(prove(8, 30)) * time.Second)))
		if err := former.Server.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		p.until("the former leader has closed its doors", func() (bool, error) {
			c, err := net.Dial("tcp", "127.0.0.1:"+former.API)
			if err == nil {
				_ = c.Close()
			}
			return err != nil, nil
		})
		all(t, connection, func(_ int, k *talk) error { return k.say("still here") })
		p.until("what it carries is seen", func() (bool, error) {
			now := p.sessionOf("u2")
			if now.ID != session.ID || now.Machine != session.Machine {
				t.Fatalf("her session was %+v and is %+v", session, now)
			}
			return slices.ContainsFunc(now.Pins, func(p shoal.Pin) bool { return p.Kind == "connection" }), nil
		})
		if code, err := connection[0].end(); code != 4 || err != nil {
			t.Errorf("the connection through the former leader ended with %d, %v", code, err)
		}
		if err := former.Server.Wait(); err == nil {
			t.Error("the former leader ended as if it had been told to")
		}
		other = former
	}
	stop()
	l.checkJobs()
}

// The executable that makes machines fails, hangs, talks nonsense or shows nothing for a while, again and again, while people log in and work. Nobody
// who is on a machine notices, who needs another one waits and gets it, and no job is lost or run twice.
func TestProviderLost(t *testing.T) {
	t.Parallel()
	p := newOnProgram(t)
	p.apply(lifeUsers, p.pool("{min: 0, max: 3}", "scale: {idle: {after: 2s}}\n"))
	l := newLife(p.world)
	stop := l.begin(l.logins, l.submissions)
	defer stop()
	r := rand.New(rand.NewPCG(l.seed, 99))
	for round := range repeat(t, 5, 100, "losses of the provider") {
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		trouble := []string{
			"exit 14\n",       // an error that may pass
			"exec sleep 15\n", // no answer
			"kill -9 $$\n",    // it dies
			"echo nonsense; exit\n",
			"case $(cat) in *'\"op\":\"observe\"'*) echo '{\"complete\":true,\"machines\":[]}'; exit;; esac; exit 14\n", // it has forgotten all
		}[round%5]
		if err := os.WriteFile(p.trouble+".new", []byte(trouble), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(p.trouble+".new", p.trouble); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + time.Duration(r.IntN(2000))*time.Millisecond)
		if err := os.Remove(p.trouble); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if n := l.count["logins broken off"]; n > 0 {
		t.Errorf("%d logins were broken off", n)
	}
	l.checkJobs()
	if host := p.ssh("u6+lab", "hostname"); host == "" {
		t.Error("nobody gets in")
	}
}
