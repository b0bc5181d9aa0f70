package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Trials are looks that act on the real host, and leave nothing.
type Trials struct {
	Overlay func(dir string) error
	Network func(ctx context.Context, nft string) (bridge, filter error)
	Listen  func(ctx context.Context, address string) error
	Serves  func(socket string) bool
	Clock   func() (synchronised bool, err error)
}

func newTrials() *Trials {
	return &Trials{Overlay: tryOverlay, Network: tryNetwork, Listen: tryListen, Serves: serves, Clock: tryClock}
}

// apart runs fn on a thread that has left the host's namespaces. The thread ends with it, and so does
// whatever it made there.
func apart(flags int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve anybody else
		if err := unix.Unshare(flags); err != nil {
			done <- fmt.Errorf("cannot make a namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

func tryOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, ".shoal-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "upper", "work", "at"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			return err
		}
	}
	return apart(unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp)
		at := filepath.Join(tmp, "at")
		if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
			return err
		}
		err := os.WriteFile(filepath.Join(at, "file"), []byte("x"), 0o600)
		return errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	})
}

// trialRules use what the server's own rules need of the kernel.
const trialRules = `table inet shoal_trial {
  chain forward { type filter hook forward priority -10; policy accept; ct state established,related accept; }
  chain source { type nat hook postrouting priority srcnat; policy accept; ip saddr 100.64.0.0/20 masquerade; }
}
table bridge shoal_trial {
  set ports { typeof iifname . ether saddr . ip saddr; }
  chain forward { type filter hook forward priority -200; policy accept; meta mark set 1; }
}
`

func tryNetwork(ctx context.Context, nft string) (bridge, filter error) {
	err := apart(unix.CLONE_NEWNET, func() error {
		bridge = tryBridge()
		if nft == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, nft, "-f", "-") // started from this thread, so in its namespace
		cmd.Stdin = strings.NewReader(trialRules)
		if out, err := cmd.CombinedOutput(); err != nil {
			first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			filter = fmt.Errorf("%w: %s", err, first)
		}
		return nil
	})
	if err != nil {
		return err, nil
	}
	return bridge, filter
}

func tryBridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "shoal-trial"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	attrs.Name = "shoal-cable"
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "shoal-end"})
}

func tryListen(ctx context.Context, address string) error {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

func serves(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// tryClock asks the kernel whether somebody disciplines its clock.
func tryClock() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}
