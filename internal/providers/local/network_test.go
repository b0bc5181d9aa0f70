package local

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shoal-pool/shoal"
)

// serve lets a machine listen: it answers each connection with who asked.
func serve(t *testing.T, p *Provider, id string, port int) {
	t.Helper()
	must(t, p, shoal.MachineID(id), perlServer(port)+" >/dev/null 2>&1 </dev/null &")
}

func perlServer(port int) string {
	return "exec " + perl(fmt.Sprintf(`use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 5, LocalPort => %d, ReuseAddr => 1) or die; `+
		`while (1) { $c = $s->accept or next; print $c $c->peerhost, "\n"; close $c }`, port))
}

// ask connects and prints the answer.
func ask(addr string, port int) string {
	return perl(fmt.Sprintf(`use IO::Socket::INET; $s = IO::Socket::INET->new(PeerAddr => "%s", PeerPort => %d, Timeout => 1) or die "$@\n"; print scalar <$s>`, addr, port))
}

func TestNetwork(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	addr := map[string]string{}
	for id, pool := range map[string]string{"m-a": "lab", "m-b": "lab", "m-c": "other"} {
		seen := create(t, p, spec(id, pool))
		addr[id] = netip.MustParseAddrPort(seen.Address).Addr().String()
		serve(t, p, id, 7000)
	}
	world := outside(t)
	reach := func(from, what, to string, port int, want string) {
		t.Helper()
		var got string
		eventually(t, func() error { // the listener takes a moment to come up
			var err error
			got, err = in(t, p, shoal.MachineID(from), ask(to, port))
			return err
		})
		if got != want {
			t.Errorf("from %s, %s answers %q, want %q", from, what, got, want)
		}
	}
	closed := func(from, what, to string, port int) {
		t.Helper()
		if got, err := in(t, p, shoal.MachineID(from), ask(to, port)); err == nil {
			t.Errorf("from %s, %s is reached: %s", from, what, got)
		}
	}
	// Machines of one pool reach each other, by name too; those of others they neither reach nor know.
	reach("m-a", "its neighbour", addr["m-b"], 7000, addr["m-a"])
	reach("m-b", "its neighbour by name", "m-a", 7000, addr["m-b"])
	reach("m-c", "itself", addr["m-c"], 7000, addr["m-c"])
	closed("m-a", "another pool", addr["m-c"], 7000)
	closed("m-c", "another pool", addr["m-a"], 7000)
	closed("m-a", "another pool by name", "m-c", 7000)

	// The host reaches its machines; they reach nothing of it but its name server.
	if c, err := net.Dial("tcp4", addr["m-c"]+":7000"); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for _, a := range append(hostAddresses(t), p.net.Gateway().String()) {
		closed("m-a", "a port of the host at "+a, a, port)
	}
	door, err := p.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := door.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintln(c, host)
			c.Close()
		}
	}()
	opened := door.Addr().(*net.TCPAddr).Port
	reach("m-a", "a door of the host", p.Gateway().String(), opened, addr["m-a"])
	if err := door.Close(); err != nil {
		t.Error(err)
	}
	var again net.Listener
	eventually(t, func() (err error) { // what was being started meanwhile had the door open, too
		again, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", p.Gateway(), opened))
		return err
	})
	closed("m-a", "a port that was a door", p.Gateway().String(), opened)
	again.Close()
	if out, err := in(t, p, "m-a", "getent hosts m-b"); err != nil || !strings.Contains(out, addr["m-b"]) {
		t.Errorf("the name server says %q: %v", out, err)
	}

	// The world is reached, and sees the host's address; it reaches no machine. Metadata addresses are refused.
	reach("m-a", "the world", world.addr, 7000, world.host)
	closed("m-a", "a link-local address", world.metadata, 7000)
	if out, err := world.run(ask(addr["m-a"], 7000)); err == nil {
		t.Errorf("the world reaches a machine: %s", out)
	}

	// A machine that speaks with another's address is not heard. Its root cannot try; the test's can.
	pid := fmt.Sprint(p.find("m-a").run.PID)
	b := p.Subnet().Addr().As4()
	b[3] = 200
	false4 := netip.AddrFrom4(b).String()
	speak := func(as string) ([]byte, error) {
		return exec.Command("nsenter", "-t", pid, "-n", "sh", "-ec", "ip addr replace "+false4+"/20 dev eth0; "+
			strings.Replace(ask(addr["m-b"], 7000), "Timeout =>", `LocalAddr => "`+as+`", Timeout =>`, 1)).CombinedOutput()
	}
	if out, err := speak(addr["m-a"]); err != nil {
		t.Errorf("a machine was not heard with its own address: %v: %s", err, out)
	}
	if out, err := speak(false4); err == nil {
		t.Errorf("a machine was heard with an address that is not its own: %s", out)
	}
	reach("m-a", "its neighbour still", addr["m-b"], 7000, addr["m-a"])
}

// hostAddresses are the host's own, the loopback's left out.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// internet is a network namespace that stands for all that is beyond the host.
type internet struct {
	name                 string
	addr, host, metadata string
}

func outside(t *testing.T) internet {
	t.Helper()
	w := internet{name: "shoal-test-world", addr: "203.0.113.2", host: "203.0.113.1", metadata: "169.254.77.2"}
	run := func(command string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	_ = exec.Command("ip", "netns", "del", w.name).Run() // of a broken-off run
	if l, err := netlink.LinkByName("shoal-world"); err == nil {
		_ = netlink.LinkDel(l)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", w.name).Run() })
	run(`ip netns add ` + w.name + `
		ip link add shoal-world type veth peer name eth0 netns ` + w.name + `
		ip addr add 203.0.113.1/30 dev shoal-world
		ip addr add 169.254.77.1/30 dev shoal-world
		ip link set shoal-world up
		ip -n ` + w.name + ` addr add 203.0.113.2/30 dev eth0
		ip -n ` + w.name + ` addr add 169.254.77.2/30 dev eth0
		ip -n ` + w.name + ` link set eth0 up
		ip -n ` + w.name + ` link set lo up
		ip -n ` + w.name + ` route add default via 203.0.113.1`)
	server := exec.Command("ip", "netns", "exec", w.name, "sh", "-c", perlServer(7000))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	return w
}

func (w internet) run(script string) (string, error) {
	out, err := exec.Command("ip", "netns", "exec", w.name, "sh", "-c", script).CombinedOutput()
	return string(out), err
}
