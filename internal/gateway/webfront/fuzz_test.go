package webfront_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// pipeDialer gives the front end's connections to servers behind to a function.
func piped(t testing.TB, serve func(net.Conn)) *webfront.Front {
	table := routes.New()
	if err := table.Put("/", target("http://backend:1"), false, time.Now()); err != nil {
		t.Fatal(err)
	}
	return webfront.New(webfront.Config{Routes: table, Dial: func(context.Context, string, string) (net.Conn, error) {
		a, z := net.Pipe()
		go serve(z)
		return a, nil
	}})
}

// one is a listener that has one connection.
type one struct {
	conn chan net.Conn
	done chan struct{}
}

func (o *one) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}

func (o *one) Close() error {
	select {
	case <-o.done:
	default:
		close(o.done)
	}
	return nil
}
func (o *one) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// talk sends bytes to a front end and returns what comes back until it is quiet or closes.
func talk(t testing.TB, f *webfront.Front, sent []byte, patience time.Duration) []byte {
	a, z := net.Pipe()
	l := &one{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- z
	s := &http.Server{Handler: f, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0)} // not Serve, which ends gracefully
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	go func() { _, _ = a.Write(sent) }()
	_ = a.SetReadDeadline(time.Now().Add(patience))
	got, _ := io.ReadAll(a)
	a.Close()
	s.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the front end does not end")
	}
	return got
}

// FuzzAnswer: whatever a server answers, the front end lives, and what its client gets is an answer of HTTP.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nok", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 999 \r\n\r\n", "garbage",
		"HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: Content-Type, close\r\nContent-Type: x\r\n\r\n",
	} {
		f.Add([]byte(s), "GET", false)
		f.Add([]byte(s), "HEAD", false)
		f.Add([]byte(s), "GET", true)
	}
	f.Fuzz(func(t *testing.T, answer []byte, method string, upgrade bool) {
		if method != "GET" && method != "HEAD" && method != "POST" {
			return
		}
		front := piped(t, func(c net.Conn) {
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = c.Write(answer)
			}
		})
		head := method + " /x HTTP/1.1\r\nHost: x\r\n"
		if upgrade {
			head += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		}
		got := talk(t, front, []byte(head+"Connection: close\r\n\r\n"), time.Minute)
		if len(got) == 0 {
			return // cut off
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("the answer %q became %q: %v", answer, got, err)
		}
		if res.StatusCode == 500 && !bytes.Contains(answer, []byte("500")) {
			t.Fatalf("the answer %q became %q", answer, got)
		}
	})
}

// FuzzRequest: whatever a client sends, what reaches the server behind are whole requests that can be read in one way only.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a%2Fb?c#d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n", "GET http://y/z HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET //\xff\x80/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Host, Content-Length, X\r\nX: 1\r\n\r\n", "PUT / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: 1\r\nContent_Length: 3\r\nTransfer_Encoding: chunked\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nabcd",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		raw := make(chan []byte, 100)
		front := piped(t, func(c net.Conn) {
			defer c.Close()
			var all bytes.Buffer
			in := bufio.NewReader(io.TeeReader(c, &all))
			defer func() { raw <- all.Bytes() }()
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		talk(t, front, sent, 5*time.Millisecond)
		for {
			select {
			case got := <-raw:
				check(t, sent, got)
				continue
			case <-time.After(time.Millisecond):
			}
			return
		}
	})
}

// check reads what has reached a server, strictly.
func check(t *testing.T, sent, got []byte) {
	in := bufio.NewReader(bytes.NewReader(got))
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		head, err := headOf(in)
		if err != nil {
			t.Fatalf("%q reached the server as %q: %v", sent, got, err)
		}
		lines := strings.Split(head, "\r\n")
		first := strings.Split(lines[0], " ")
		if len(first) != 3 || first[1] == "" || first[1][0] != '/' || first[2] != "HTTP/1.1" {
			t.Fatalf("%q reached the server with the line %q", sent, lines[0])
		}
		lengths, hosts := 0, 0
		for _, line := range lines[1:] {
			name, _, ok := strings.Cut(line, ": ")
			if !ok || name == "" || strings.ContainsAny(name, " \t\x00\r\n") || strings.ContainsAny(line, "\x00\r\n") {
				t.Fatalf("%q reached the server with the header %q", sent, line)
			}
			switch strings.ToLower(name) {
			case "content-length", "transfer-encoding":
				lengths++
			case "host":
				hosts++
			}
		}
		if lengths > 1 || hosts != 1 {
			t.Fatalf("%q reached the server with %d lengths and %d hosts: %q", sent, lengths, hosts, head)
		}
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head+"\r\n\r\n"), in)))
		if err != nil {
			t.Fatalf("%q reached the server as %q: %v", sent, got, err)
		}
		if r.ContentLength != 0 {
			return // the body is not looked at here
		}
	}
}

func headOf(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == "\r\n" {
			return strings.TrimSuffix(b.String(), "\r\n"), nil
		}
		b.WriteString(line)
	}
}
