package gateway

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/need"
)

// pair is a connection with both its ends.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []net.Conn{c, d} {
		x.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { x.Close() })
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func TestPipePassesOnThatOneSideHasSaidAll(t *testing.T) {
	t.Parallel()
	client, front := pair(t)
	back, machine := pair(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		Pipe(front, io.MultiReader(strings.NewReader("read before; "), front), back, 0)
	}()
	large := bytes.Repeat([]byte("x"), 4<<20)
	go func() {
		client.Write(large)
		client.CloseWrite()
	}()
	got, err := io.ReadAll(machine)
	if err != nil || string(got[:13]) != "read before; " || !bytes.Equal(got[13:], large) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	go func() {
		machine.Write(large)
		machine.Close()
	}()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	<-over
}

func TestPipeEndsBothWhenOneFails(t *testing.T) {
	t.Parallel()
	client, front := pair(t)
	back, machine := pair(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		Pipe(front, front, back, 0)
	}()
	machine.SetLinger(0)
	machine.Close() // a reset
	if _, err := io.ReadAll(client); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	<-over
}

func TestPipeDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	client, front := pair(t)
	back, machine := pair(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		Pipe(front, front, back, 20*time.Millisecond)
	}()
	client.CloseWrite()
	if b, err := io.ReadAll(machine); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	<-over
}

func TestRefused(t *testing.T) {
	t.Parallel()
	if _, err := net.Dial("tcp", "127.0.0.1:"+need.Port(t)); !Refused(err) {
		t.Error(err)
	}
	if Refused(nil) || Refused(io.EOF) {
		t.Error("it is refused otherwise")
	}
}
