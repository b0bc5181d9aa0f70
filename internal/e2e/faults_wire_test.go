package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// wire leads on to a database until it is cut. Then nothing that is said arrives and nobody is told, as where a network drops
// packets; what was said meanwhile arrives once it is mended, if anybody is left to hear it.
type wire struct {
	dir, to string // directories with sockets of PostgreSQL's
	mu      sync.Mutex
	whole   chan struct{} // closed while it is not cut
}

const pgSocket = ".s.PGSQL.5432"

// newWire returns a wire to a database, and its address at the near end.
func newWire(t testing.TB, address string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: u.Query().Get("host"), whole: make(chan struct{})}
	close(w.whole)
	if w.dir, err = os.MkdirTemp("", "shoal-wire-"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(w.dir, pgSocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.mend()
		_ = l.Close()
		_ = os.RemoveAll(w.dir)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.lead(c)
		}
	}()
	u.RawQuery = url.Values{"host": {w.dir}}.Encode()
	return w, u.String()
}

func (w *wire) lead(near net.Conn) {
	defer near.Close()
	w.wait()
	far, err := net.Dial("unix", filepath.Join(w.to, pgSocket))
	if err != nil {
		return
	}
	defer far.Close()
	go func() { defer near.Close(); defer far.Close(); w.carry(far, near) }()
	w.carry(near, far)
}

// carry brings what is said, and the end of it, as long as the wire is whole.
func (w *wire) carry(to, from net.Conn) {
	for b := make([]byte, 32<<10); ; {
		n, err := from.Read(b)
		w.wait()
		if _, bad := to.Write(b[:n]); err != nil || bad != nil {
			return
		}
	}
}

func (w *wire) wait() {
	w.mu.Lock()
	whole := w.whole
	w.mu.Unlock()
	<-whole
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = make(chan struct{})
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.whole:
	default:
		close(w.whole)
	}
}

// at is a server with another address of its database.
func at(s *rig.World, address string) *rig.World {
	other := *s
	other.Flags = slices.Clone(s.Flags)
	other.Flags[slices.Index(other.Flags, "--database")+1] = address
	return &other
}

// Two servers on one host; packets between the one that leads and the database are dropped. It does not know who leads then, and does nothing; the
// other takes over, and ends it. What was accepted is not lost, tasks run once.
func TestLeaderCutOff(t *testing.T) {
	t.Parallel()
	_, address := database(t)
	dir := newDir(t)
	mine, near := newWire(t, address)
	other, far := newWire(t, address)
	w := newWorldIn(t, dir, "--database", near)
	w.apply(lifeUsers, rig.Pool("lab", "interactive, batch", "{cpus: 2, memory: 512MiB}", "{min: 1, max: 3}", 4, "scale: {idle: {after: 1h}}\n"+smallSeats))
	host := w.ssh("u1+lab", "tmux new-session -d -s mine 'sleep 100000'; hostname") // without it she has no machine that is hers
	l := newLife(w)
	stop := l.begin(l.logins, l.submissions)
	defer stop()
	r := rand.New(rand.NewPCG(l.seed, 99))
	for range repeat(t, 1, 34, "takeovers") {
		l.more("jobs")
		next := at(w.World, far)
		next.Server = w.launch(next)
		time.Sleep(time.Second + time.Duration(r.IntN(2000))*time.Millisecond)
		former := w.Server
		mine.cut()
		cut := time.Now()
		w.World.Server, w.World.Flags = next.Server, next.Flags
		w.answers(cut)
		if err := former.Wait(); err == nil {
			t.Error("the former leader ended as if it had been told to")
		}
		mine.mend()
		mine, other, near, far = other, mine, far, near
	}
	l.more("jobs")
	stop()
	l.checkJobs()
	if now := w.ssh("u1+lab", "tmux list-sessions -F '#{session_name}'; hostname"); now != "mine\n"+host {
		t.Errorf("she was on %s, and is on %s", host, now)
	}
}

// agentDoor is where a server listens for agents on other hosts.
func agentDoor(s *rig.World) string { return s.Flags[slices.Index(s.Flags, "--agent-listen")+1] }

// Two servers on two hosts; packets between the one that leads and the database are dropped, and it goes on otherwise: machines' agents and people can
// reach it. The agents leave it for the other, which lets nobody's task run twice. When it hears of the database again it ends.
func TestLeaderCutOffElsewhere(t *testing.T) {
	t.Parallel()
	_, address := database(t)
	mine, near := newWire(t, address)
	other, far := newWire(t, address)
	door, err := rig.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(door)
	if err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprintf("198.51.100.%d", 1+n%250) // of a network for examples; machines have a way to this address alone
	ports := make([]string, 2)
	for i := range ports {
		if ports[i], err = rig.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	p := newOnProgramWith(t, wayTo(host), "--database", near, "--linger", "10m", "--agent-listen", "127.0.0.1:"+ports[0], "--agent-url", "https://"+net.JoinHostPort(host, door))
	p.servers.listenAt("tcp", ":"+door, func(s *rig.World) (net.Conn, error) { return net.Dial("tcp", agentDoor(s)) })
	p.apply(lifeUsers, p.pool("{min: 1, max: 1}", ""))
	l := newLife(p.world)
	l.lead = p.lead
	stop := l.begin(l.submissions)
	defer stop()
	elsewhere := at(p.elsewhere(), far)
	elsewhere.Flags[slices.Index(elsewhere.Flags, "--agent-listen")+1] = "127.0.0.1:" + ports[1]
	p.servers.know(elsewhere)
	for range repeat(t, 1, 34, "takeovers") {
		elsewhere.Server = p.launch(elsewhere)
		l.more("jobs")
		former := p.World
		connection := []*talk{p.talk("u2+lab", 4)}
		all(t, connection, func(_ int, k *talk) error { return k.hear("ready") })
		session := p.sessionOf("u2")
		mine.cut()
		cut := time.Now()
		p.World = elsewhere
		p.answers(cut)
		if host := p.ssh("u3+lab", "hostname"); host != string(session.Machine) {
			t.Errorf("there is machine %s beside %s", host, session.Machine)
		}
		l.more("jobs")
		all(t, connection, func(_ int, k *talk) error { return k.say("still here") })
		mine.mend()
		p.until("the former leader has closed its doors", func() (bool, error) {
			c, err := net.Dial("tcp", "127.0.0.1:"+former.API)
			if err == nil {
				_ = c.Close()
			}
			return err != nil, nil
		})
		all(t, connection, func(_ int, k *talk) error { return k.say("still here") })
		if code, err := connection[0].end(); code != 4 || err != nil {
			t.Errorf("the connection through the former leader ended with %d, %v", code, err)
		}
		if err := former.Server.Wait(); err == nil {
			t.Error("the former leader ended as if it had been told to")
		}
		elsewhere = former
		mine, other = other, mine
	}
	stop()
	l.checkJobs()
}

// wayTo is what an executable that makes machines does beside, so that they have a way to an address of this host.
func wayTo(host string) string {
	return strings.ReplaceAll(`request=$(cat)
printf '%s' "$request" | $machines "$1" || exit
case $request in *'"op":"create"'* | *'"op":"start"'*) ;; *) exit 0 ;; esac
id=$(printf '%s' "$request" | jq -r .machine.id)
machine() { nsenter --net --target "$(cat "$SHOAL_PROVIDER_DIR/machines/$id/pid")" "$@"; }
link=$(machine ip -o link show eth0 | sed 's/.*@if\([0-9]*\):.*/\1/')
link=$(ip -o link | sed -n "s/^$link: \([^@:]*\)[@:].*/\1/p")
ip address add HOST/32 dev "$link" 2>/dev/null
machine ip route replace HOST via "$(ip -o -4 address show dev "$link" | sed -n 's/.*inet \(198\.1[89]\.[0-9.]*\).*/\1/p')"
`, "HOST", host)
}
