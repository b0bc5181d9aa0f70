package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

// TestAttackWeb is who comes to the address for browsers with nothing good in mind, while a member uses her web app.
func TestAttackWeb(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(2, rig.Pool("lab", "interactive", "{cpus: 1, memory: 1GiB}", "{min: 1, max: 1}", 4,
		"endpoints:\n  - {name: files, protocol: http, command: \"cd /shared && exec python3 -m http.server --bind 127.0.0.1 $SHOAL_PORT\", stripPrefix: true, ready: {path: /}}\n"))
	if err := os.WriteFile(filepath.Join(w.Share, "hello.txt"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.ready("lab", 1)
	trust := &tls.Config{InsecureSkipVerify: true} // what is tested here is another thing
	member := w.signIn(t, "u1")
	member.base, member.http = "https://127.0.0.1:"+w.HTTPS, &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	use := func() (int, string) { return member.ask(http.MethodGet, "/shoal/app/lab/files/hello.txt", "") }
	w.until("the app answers", func() (bool, error) {
		status, text := use()
		return status == http.StatusOK && text == "hello", nil
	})
	pid := w.Server.Process.Pid
	before, err := proxy.Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { // her use of it goes on all the time
		n := 0
		for ; ctx.Err() == nil; n++ {
			if status, text := use(); status != http.StatusOK || text != "hello" {
				t.Errorf("meanwhile her app answers %d %.200s", status, text)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		done <- n
	}()
	a := &attacker{w, trust, "Authorization: Bearer " + strings.TrimSpace(member.token) + "\r\n"}
	t.Run("requests that two servers could read in two ways", a.smuggle)
	t.Run("too much", a.oversize)
	t.Run("odd addresses", a.oddPaths)
	t.Run("clients that never end", a.slow)
	t.Run("websockets without end", a.flood)
	cancel()
	if n := <-done; n < 10 {
		t.Errorf("she could use her app %d times only", n)
	}
	w.until("the memory is back", func() (bool, error) {
		after, err := proxy.Memory(pid)
		return after < before+100*1024, err
	})
	log, err := os.Stat(filepath.Join(w.Dir, "serve.log"))
	if err != nil || log.Size() > 4<<20 {
		t.Errorf("the log has become %v: %v", log, err)
	}
}

type attacker struct {
	w     *world
	trust *tls.Config
	token string // the line that lets a request in
}

func (a *attacker) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", "127.0.0.1:"+a.w.HTTPS, a.trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // may be closed already
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// say sends bytes and returns the statuses of all answers until the server closes, or has said nothing for a while after
// one.
func (a *attacker) say(t *testing.T, text string) (statuses []int) {
	t.Helper()
	c := a.dial(t)
	go func() { _, _ = io.WriteString(c, text) }() // the server may close before it has read all
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, r.StatusCode)
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.Close {
			return statuses
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // what else there is comes at once
	}
}

// smuggle hides a second request in the first, which would pass with somebody else's. One answer, and one that
// refuses, or closes, is right; a second that succeeds is the smuggled one's.
func (a *attacker) smuggle(t *testing.T) {
	const hidden = "GET /shoal/app/lab/files/hello.txt HTTP/1.1\r\nHost: x\r\n\r\n"
	head := "POST /shoal/app/lab/files/ HTTP/1.1\r\nHost: x\r\n" + a.token
	for name, text := range map[string]string{
		"length and chunks":        head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", len(hidden)+5, hidden),
		"two lengths":              head + fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"a list of lengths":        head + fmt.Sprintf("Content-Length: 0, %d\r\n\r\n%s", len(hidden), hidden),
		"a length with a sign":     head + "Content-Length: +5\r\n\r\nhello" + hidden,
		"another encoding":         head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"two encodings":            head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"a space before the colon": head + "Content-Length : 5\r\n\r\nhello" + hidden,
		"a folded line":            head + "X: a\r\n Content-Length: 5\r\n\r\n" + hidden,
		"a chunk of no number":     head + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + hidden,
		"an end in the name":       head + "X\rY: 1\r\n\r\n" + hidden,
		"a null in a value":        head + "X: a\x00b\r\n\r\n" + hidden,
		"two hosts":                "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + hidden,
	} {
		got := a.say(t, text)
		if len(got) > 1 && got[1] < 400 || len(got) > 0 && got[0] < 300 {
			t.Errorf("%s: answers %v", name, got)
		}
	}
}

func (a *attacker) oversize(t *testing.T) {
	get := "GET /shoal/app/lab/files/hello.txt HTTP/1.1\r\nHost: x\r\n" + a.token
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"a long address":         {"GET /" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "[414]"},
		"large cookies":          {get + "Cookie: a=" + strings.Repeat("a", 40<<10) + "\r\n\r\n", "[431]"},
		"large headers":          {get + strings.Repeat("X-A: "+strings.Repeat("a", 4000)+"\r\n", 300) + "\r\n", "[431]"},
		"many headers":           {get + strings.Repeat("X: 1\r\n", 5000) + "\r\n", "[431]"},
		"a header without end":   {get + "X: " + strings.Repeat("a", 4<<20), "[431]"},
		"a method without end":   {strings.Repeat("A", 4<<20), "[431]"},
		"a large body of a form": {"POST /shoal/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 900000000\r\n\r\n" + strings.Repeat("a", 4<<20), "4"},
	} {
		got := fmt.Sprint(a.say(t, c.text))
		if got != c.want && !(c.want == "4" && strings.HasPrefix(got, "[4")) && got != "[]" { // closed at once is as good
			t.Errorf("%s: answers %s, want %s", name, got, c.want)
		}
	}
}

// oddPaths are never the server's own fault, and never lead elsewhere.
func (a *attacker) oddPaths(t *testing.T) {
	for _, path := range []string{"/%", "/%00", "/shoal/app/lab/files/%2e%2e/%2e%2e/etc/passwd", "/shoal/app/lab/files/../../../etc/passwd", "/shoal/app/", "/shoal/app/lab", "/shoal/app/LAB/files/",
		"/shoal/app/lab%2Ffiles/", "/shoal/app//files/", "/shoal/app/../../api/v1/users", "/shoal/%2e%2e/api/v1/users", "//evil.example.org/", "/\\evil.example.org", "/shoal//", "/shoal/login?next=//evil.example.org",
		"/api/v1/%2e%2e/%2e%2e/shoal/", "/user/", "/user/%F0%28%8C%BC/", "/hub/../shoal/", "http://evil.example.org/shoal/", "*"} {
		for _, token := range []string{"", a.token} {
			for _, status := range a.say(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+token+"\r\n") {
				if status >= 500 || status == 200 && strings.Contains(path, "api/v1") && token == "" || status == 200 && strings.Contains(path, "passwd") {
					t.Errorf("%s: status %d", path, status)
				}
			}
		}
	}
}

// slow opens connections that begin a request and never end it: they are ended.
func (a *attacker) slow(t *testing.T) {
	var wg sync.WaitGroup
	for i := range prove(100, 2000) {
		c := a.dial(t)
		wg.Go(func() {
			text := "GET / HTTP/1.1\r\nHost: x\r\n"
			if i%2 == 1 {
				text = "POST /shoal/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nuser"
			}
			if _, err := io.WriteString(c, text); err != nil {
				return // it is ended already
			}
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("a connection that never ends its request is kept: %v", err)
			}
		})
	}
	wg.Wait()
}

// flood asks for more websockets than anybody needs.
func (a *attacker) flood(t *testing.T) {
	refused := 0
	for range prove(300, 6000) {
		for _, status := range a.say(t, "GET /shoal/app/lab/files/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+a.token+"\r\n") {
			if status >= 500 {
				t.Fatalf("status %d", status)
			}
			refused++
		}
	}
	if refused == 0 {
		t.Error("not one was answered")
	}
}
