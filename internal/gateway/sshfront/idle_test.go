package sshfront

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestIdleMemory reports what an idle session of each of many users costs the gateway. The
// gateway runs in a process of its own, so that the clients are not counted.
func TestIdleMemory(t *testing.T) {
	if os.Getenv("SHOAL_IDLE_GATEWAY") != "" {
		t.Skip("is the gateway")
	}
	if os.Getenv("SHOAL_COUNT") == "" {
		t.Skip("it measures and judges nothing: with SHOAL_COUNT")
	}
	const sessions = 200 // for which the goal is stated
	helper := exec.Command(os.Args[0], "-test.run", "^TestIdleGateway$", "-test.v")
	helper.Env = append(os.Environ(), "SHOAL_IDLE_GATEWAY=1")
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := helper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	defer helper.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	word := func(key string) string {
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), key+" "); ok {
				return v
			}
		}
		t.Skipf("the gateway did not say %s", key)
		return ""
	}
	w := &world{t: t, log: &syncBuffer{}}
	w.addr, w.dir = word("addr"), word("dir")
	measure := func() int {
		runtime.GC()
		time.Sleep(100 * time.Millisecond)
		return pss(t, helper.Process.Pid)
	}
	// One session first, so that what is paid once is not counted.
	open := func(user string) {
		s, err := w.dial(t, user).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
	}
	open("alice")
	before := measure()
	for i := range sessions {
		open(fmt.Sprintf("u%d", i))
	}
	t.Logf("%d KiB before, %d KiB after %d sessions: %.1f KiB per idle session", before, measure(), sessions, float64(measure()-before)/float64(sessions))
}

// TestIdleGateway is the other process of TestIdleMemory.
func TestIdleGateway(t *testing.T) {
	if os.Getenv("SHOAL_IDLE_GATEWAY") == "" {
		t.Skip("a part of TestIdleMemory")
	}
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	fmt.Printf("addr %s\ndir %s\n", w.addr, w.dir)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// pss returns the proportional set size of a process, in KiB.
func pss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}

// BenchmarkKeystroke compares the echo of one byte through the gateway with the direct way.
func BenchmarkKeystroke(b *testing.B) {
	w := newWorld(b)
	m := w.newMachine("m-1")
	w.router.to(m)
	start := func(addr string) func() time.Duration {
		cmd := w.sshTo(addr, "alice@127.0.0.1", "stty raw -echo 2>/dev/null; exec cat")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { in.Close(); cmd.Wait() })
		one := make([]byte, 1)
		return func() time.Duration {
			begun := time.Now()
			if _, err := in.Write([]byte("x")); err != nil {
				b.Fatal(err)
			}
			if _, err := out.Read(one); err != nil {
				b.Fatal(err)
			}
			return time.Since(begun)
		}
	}
	direct, through := start(m.addr), start(w.addr)
	direct()
	through()
	var x, y []time.Duration
	for range 2000 {
		x = append(x, direct())
		y = append(y, through())
	}
	slices.Sort(x)
	slices.Sort(y)
	b.Logf("median echo: direct %v, gateway %v, more by %v", x[1000], y[1000], y[1000]-x[1000])
}

var _ ssh.Signer = thiefSigner{}
