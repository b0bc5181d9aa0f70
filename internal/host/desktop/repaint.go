package desktop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// visit is a client that is connected to a display.
type visit struct {
	since   time.Time
	painted int // how often everything was painted for it
}

// owed reports whether it is time to paint for the client, again or for the first time.
func (v *visit) owed(now time.Time) bool {
	times := [...]time.Duration{time.Second, 5 * time.Second, 15 * time.Second}
	owed := false
	for v.painted < len(times) && now.Sub(v.since) >= times[v.painted] {
		v.painted++
		owed = true
	}
	return owed
}

// Repaint serves one display, such as ":10.0", until its X server ends or ctx does: whenever a client of RDP has come to
// it, everything is painted anew, three times. xorgxrdp drops what it is to send before the client has said what it can
// do, and paints only what changes after it (https://github.com/neutrinolabs/xrdp/issues/1964): on a busy machine, a
// desktop at rest would stay black. It runs in the user's session, as she.
func Repaint(ctx context.Context, display string) error {
	_, number, ok := strings.Cut(display, ":")
	if !ok {
		return fmt.Errorf("DISPLAY is %q, where a display of this machine is expected", display)
	}
	number, _, _ = strings.Cut(number, ".")
	conn, err := xgb.NewConnDisplay(display)
	if err != nil {
		return fmt.Errorf("cannot reach the X server %s: %w", display, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for event, err := conn.WaitForEvent(); event != nil || err != nil; event, err = conn.WaitForEvent() {
		} // neither: the X server has ended
	}()
	visits := map[string]*visit{} // by the inodes of their sockets
	for {
		sockets, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			return err
		}
		there := attached(sockets, "xrdp_display_"+number)
		maps.DeleteFunc(visits, func(inode string, _ *visit) bool { return !there[inode] })
		owed := false
		for inode := range there {
			if visits[inode] == nil {
				visits[inode] = &visit{since: time.Now()}
			}
			owed = visits[inode].owed(time.Now()) || owed
		}
		if owed {
			if err := paint(conn); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// attached finds in /proc/net/unix who is connected to the socket of a name; the inodes.
func attached(sockets []byte, name string) map[string]bool {
	const connected = "03"
	there := map[string]bool{}
	for line := range strings.Lines(string(sockets)) {
		f := strings.Fields(line) // Num RefCount Protocol Flags Type St Inode Path
		if len(f) == 8 && f[5] == connected && strings.HasSuffix(f[7], "/"+name) {
			there[f[6]] = true
		}
	}
	return there
}

// paint covers the screen for a moment, without a picture of its own: the server paints the root window anew, and asks
// all programs to do so with theirs.
func paint(conn *xgb.Conn) error {
	screen := xproto.Setup(conn).DefaultScreen(conn)
	window, err := xproto.NewWindowId(conn)
	if err != nil {
		return err
	}
	root, err := xproto.GetGeometry(conn, xproto.Drawable(screen.Root)).Reply() // the client's size, not that of the start
	if err != nil {
		return err
	}
	const (
		noPixmap   = 0
		unmanaged  = 1
		attributes = xproto.CwBackPixmap | xproto.CwOverrideRedirect
	)
	create := xproto.CreateWindowChecked(conn, screen.RootDepth, window, screen.Root, 0, 0, root.Width, root.Height, 0,
		xproto.WindowClassInputOutput, screen.RootVisual, attributes, []uint32{noPixmap, unmanaged})
	show := xproto.MapWindowChecked(conn, window)
	end := xproto.DestroyWindowChecked(conn, window)
	return errors.Join(create.Check(), show.Check(), end.Check())
}
