package webfront_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// told returns how often use was told since the last call.
func (a *apps) told() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.used
	a.used = 0
	return n
}

// visitor is alice before a front end that has one route, to her server.
type visitor struct {
	*testing.T
	apps *apps
	conn net.Conn
	back *bufio.Reader
}

// inBrowser runs a test in which all requests come on one connection, and time is its own. The server answers GET /user/alice/STATUS
// as it says and everything else by 200; websockets it takes, and sends what say gets.
func inBrowser(t *testing.T, test func(v *visitor, say chan string)) {
	synctest.Test(t, func(t *testing.T) {
		table := routes.New()
		posted := target("http://10.0.0.7:61000")
		posted["user"] = []byte(`"alice"`)
		if err := table.Put("/user/alice", posted, true, time.Now()); err != nil {
			t.Fatal(err)
		}
		say := make(chan string)
		a := &apps{of: map[string]shoal.App{"x": {ID: "a-1", User: "alice", State: shoal.AppRunning, Address: "10.0.0.7:61000"}}}
		f := webfront.New(webfront.Config{Routes: table, Guard: guard{}, Apps: a, Dial: func(context.Context, string, string) (net.Conn, error) {
			front, server := net.Pipe()
			go serveOne(server, say)
			return front, nil
		}})
		l := &one{conn: make(chan net.Conn, 1), done: make(chan struct{})}
		s := newServe(t, f, l)
		c, z := net.Pipe()
		l.conn <- z
		test(&visitor{T: t, apps: a, conn: c, back: bufio.NewReader(c)}, say)
		close(say)
		c.Close()
		s.stop()
	})
}

func serveOne(c net.Conn, say chan string) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if r.Header.Get("Upgrade") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
			for text := range say {
				_, _ = io.WriteString(c, text)
			}
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		status := 200
		_, _ = fmt.Sscanf(r.URL.Path, "/user/alice/%d", &status)
		fmt.Fprintf(c, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", status)
	}
}

func (v *visitor) ask(method, path, more string) {
	v.Helper()
	fmt.Fprintf(v.conn, "%s /user/alice%s HTTP/1.1\r\nHost: x\r\nCookie: __Host-shoal=alice\r\n%s\r\n", method, path, more)
	res, err := http.ReadResponse(v.back, nil)
	if err != nil {
		v.Fatal(err)
	}
	res.Body.Close()
	synctest.Wait()
}

// TestUseOfServer: whoever looks through files, edits or uploads uses her server, though it has no kernel. A page left open does not.
func TestUseOfServer(t *testing.T) {
	inBrowser(t, func(v *visitor, _ chan string) {
		for range 30 { // a minute
			v.ask("GET", "/api/contents?x=1", "")
			time.Sleep(2 * time.Second)
		}
		if n := v.apps.told(); n != 6 {
			t.Errorf("in a minute of looking through files use was told %d times", n)
		}
		for _, c := range []struct {
			method, path string
			use          int
		}{
			{"GET", "/tree", 1}, {"PUT", "/api/contents/a.txt", 1}, {"POST", "/api/kernels", 1}, {"GET", "/files/api.txt", 1},
			{"GET", "/api/status", 0}, {"GET", "/api/kernels?1617", 0}, {"GET", "/api/sessions/", 0}, {"GET", "/name/api/terminals", 0},
			{"GET", "/api/contents?no_track_activity=1", 0}, {"GET", "/302", 0}, {"GET", "/404", 0},
		} {
			time.Sleep(time.Minute)
			v.ask(c.method, c.path, "")
			if n := v.apps.told(); n != c.use {
				t.Errorf("%s %s: use was told %d times", c.method, c.path, n)
			}
		}
		v.apps.mu.Lock()
		v.apps.of["x"] = shoal.App{ID: "a-1", User: "bob", Address: "10.0.0.7:61000"}
		v.apps.mu.Unlock()
		time.Sleep(time.Minute)
		v.ask("GET", "/tree", "")
		if n := v.apps.told(); n != 0 {
			t.Error("what alice's route leads to is bob's by now, and is kept by her")
		}
	})
}

// TestUseOfWebsocket: the pings of an open page are no use, and what else is said is.
func TestUseOfWebsocket(t *testing.T) {
	inBrowser(t, func(v *visitor, say chan string) {
		v.ask("GET", "/lsp", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
		if n := v.apps.told(); n != 1 {
			t.Errorf("opening one was told %d times", n)
		}
		for text, use := range map[string]int{"\x89\x00": 0, "\x8a\x04abcd": 0, "\x81\x02hi": 1} {
			time.Sleep(time.Minute)
			say <- text
			if _, err := io.ReadFull(v.back, make([]byte, len(text))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := v.apps.told(); n != use {
				t.Errorf("%q was told %d times", text, n)
			}
		}
	})
}
