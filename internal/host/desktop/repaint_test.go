package desktop

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"github.com/shoal-pool/shoal/internal/need"
)

// screen starts an X server whose screen nobody sees. It returns its number.
func screen(t *testing.T) (number string, end func()) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command(need.Program(t, "Xvfb"), "-displayfd", "3", "-screen", "0", "320x200x24", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{write}
	err = cmd.Start()
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	number, err = bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatalf("Xvfb does not say its number: %v", err)
	}
	return strings.TrimSpace(number), end
}

// window shows a window, and returns what tells each time that it is to be painted.
func window(t *testing.T, display string) <-chan xgb.Event {
	t.Helper()
	conn, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	s := xproto.Setup(conn).DefaultScreen(conn)
	id, err := xproto.NewWindowId(conn)
	if err != nil {
		t.Fatal(err)
	}
	xproto.CreateWindow(conn, s.RootDepth, id, s.Root, 10, 10, 100, 50, 0, xproto.WindowClassInputOutput, s.RootVisual,
		xproto.CwEventMask, []uint32{xproto.EventMaskExposure})
	if err := xproto.MapWindowChecked(conn, id).Check(); err != nil {
		t.Fatal(err)
	}
	exposed := make(chan xgb.Event, 100)
	go func() {
		for event, err := conn.WaitForEvent(); event != nil || err != nil; event, err = conn.WaitForEvent() {
			exposed <- event
		}
	}()
	<-exposed // it is there
	return exposed
}

// Each client that comes has everything painted anew. With the X server it ends.
func TestRepaint(t *testing.T) {
	t.Parallel()
	number, end := screen(t)
	display := ":" + number + ".0"
	exposed := window(t, display)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "xrdp_display_"+number))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended := make(chan error, 1)
	go func() { ended <- Repaint(t.Context(), display) }()
	for range 2 {
		client, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-exposed:
		case err := <-ended:
			t.Fatalf("it has ended: %v", err)
		case <-time.After(time.Minute):
			t.Fatal("a client has come, and nothing was painted")
		}
		client.Close()
		server.Close()
	}
	end()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the X server has ended, and it goes on")
	}
}

func TestRepaintWithoutADisplay(t *testing.T) {
	t.Parallel()
	if err := Repaint(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "DISPLAY") {
		t.Errorf("without a display: %v", err)
	}
}
