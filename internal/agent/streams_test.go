package agent

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// TestLetIn hands a connection over to sshd, without TLS: nothing is lost at the switch, the agent keeps nothing of it, and says nothing on it.
func TestLetIn(t *testing.T) {
	t.Parallel()
	came := make(chan net.Conn, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != api.BareProtocol || r.Header.Get(api.StreamHeader) != "secret" {
			t.Errorf("asked with %v", r.Header)
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+api.BareProtocol+"\r\n\r\n")
		if err != nil {
			t.Error(err)
		}
		came <- c.(interface{ NetConn() net.Conn }).NetConn()
	}))
	defer srv.Close()
	sshd := make(chan *os.File, 1)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	a, err := New(Config{Join: provider.Join{Machine: "m-1", Control: srv.URL, CA: string(ca)}, People: &People{}, Log: slog.New(slog.DiscardHandler),
		LetIn: func(f *os.File) error { // as another process it gets a descriptor of its own
			again, err := net.FileConn(f)
			if err != nil {
				return err
			}
			defer again.Close()
			dup, err := again.(*net.TCPConn).File()
			sshd <- dup
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	a.streams.life = ctx
	a.comeFor(api.ReachOrder{Stream: "secret", Bare: true})
	server, machine := <-came, <-sshd
	a.working.Wait()
	stop() // the agent is gone
	a.control.http.CloseIdleConnections()
	defer server.Close()
	defer machine.Close()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, err := machine.Write(big)
		if err := errors.Join(err, machine.Close()); err != nil {
			t.Error(err)
		}
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, append([]byte(api.BareMark), big...)) {
		t.Errorf("%d bytes came, %q first: %v", len(got), got[:min(len(got), 40)], err)
	}
}
