package ways

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/shoal-pool/shoal"
)

func TestWay(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	var admits, over atomic.Bool
	admits.Store(true)
	dialled := make(chan string, 10)
	w := New(ctx, Config{Admits: func(uid int) bool { return admits.Load() && uid == os.Getuid() },
		On: func(address string) (shoal.MachineID, bool) { return "m-1", !over.Load() && address == "10.0.0.1:700" },
		Dial: func(_ context.Context, id shoal.MachineID, address string) (net.Conn, error) {
			dialled <- string(id) + " " + address
			a, b := net.Pipe()
			go func() { _, _ = io.WriteString(b, "the app"); b.Close() }()
			return a, nil
		}})
	at, err := w.To("10.0.0.1:700")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.To("10.0.0.1:700"); again != at || err != nil {
		t.Errorf("the second time it is %s, %v, after %s", again, err, at)
	}
	if got := w.From(at); got != "10.0.0.1:700" {
		t.Errorf("it leads to %s", got)
	}
	if got := w.From("10.0.0.2:80"); got != "10.0.0.2:80" {
		t.Errorf("another address is taken for %s", got)
	}
	if got := hears(t, at); got != "the app" {
		t.Errorf("heard %q", got)
	}
	if got := <-dialled; got != "m-1 10.0.0.1:700" {
		t.Errorf("dialled %s", got)
	}
	admits.Store(false)
	if got := hears(t, at); got != "" {
		t.Errorf("another account hears %q", got)
	}
	admits.Store(true)
	over.Store(true)
	if got := hears(t, at); got != "" {
		t.Errorf("after its end the app says %q", got)
	}
	if _, err := w.To("10.0.0.3:700"); err != nil { // and the way to what is over is closed
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("the way to what is over is open")
	}
	stop()
	w.Wait()
	if _, err := w.To("10.0.0.4:700"); !errors.Is(err, context.Canceled) {
		t.Errorf("at the end a way is opened: %v", err)
	}
}

func hears(t *testing.T, at string) string {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, _ := io.ReadAll(c) // a refused one may be reset
	return string(b)
}
