// Package guest runs programs in a virtual machine with a kernel of Debian's, for what the kernel of this host
// cannot do: mount file servers' shares by the kernel's own clients. QEMU emulates the machine, without help of the
// processor's, so it runs everywhere and some ten times slower than the host.
//
// The guest has a serial console, 10.0.2.2 as the address of the host's loopback, and everything in memory. Nothing of it
// outlives Run, which costs about ten seconds before the program begins.
package guest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Host is the address at which a guest reaches the host's loopback.
const Host = "10.0.2.2"

// Config says what runs in a guest, as root.
type Config struct {
	// Programs of the host, by name, are there with the libraries they need. mount, umount and what busybox has are always there.
	Programs []string
	// Files of the host by their paths in the guest; a static binary needs no more than that.
	Files   map[string]string
	Env     []string
	Command []string
	// Timeout bounds the command; the guest's own time counts, and the guest has some minutes more to start and stop.
	Timeout time.Duration
}

// Result is what came of a command.
type Result struct {
	Code    int    // the exit status
	Output  string // what it wrote to stdout and stderr
	Console string // what the kernel said; its whole log when the command failed
}

//go:embed init.sh
var initScript string

// Run boots a guest, runs the command, and waits for the guest's end.
func Run(ctx context.Context, cfg Config) (Result, error) {
	base, err := modules(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("cannot prepare the guest's kernel: %w", err)
	}
	dir, err := os.MkdirTemp("", "shoal-guest-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := assemble(ctx, cfg, dir, base.modules, initrd); err != nil {
		return Result{}, fmt.Errorf("cannot make the guest's files: %w", err)
	}
	limit := cfg.Timeout + 5*time.Minute
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	console, output := filepath.Join(dir, "console"), filepath.Join(dir, "output")
	// On a host that has much to do the kernel would see so few of the timer's interrupts as it starts that it gave up: it is not to look.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-kernel", base.kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on tsc=reliable no_timer_check",
		"-serial", "file:"+console, "-serial", "file:"+output,
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	said, err := cmd.CombinedOutput()
	var r Result
	text, readErr := os.ReadFile(console)
	r.Console = clean(text)
	if text, readErr2 := os.ReadFile(output); readErr2 == nil {
		r.Output = clean(text)
	}
	if ctx.Err() != nil {
		return r, fmt.Errorf("the guest did not end within %s: %w", limit, ctx.Err())
	}
	if err := errors.Join(err, readErr); err != nil {
		return r, fmt.Errorf("the emulator failed: %w: %s", err, bytes.TrimSpace(said))
	}
	found := ended.FindStringSubmatch(r.Console)
	if found == nil {
		return r, errors.New("the guest ended before the command did")
	}
	r.Code, err = strconv.Atoi(found[1])
	return r, err
}

// ended is what init.sh says of the command.
var ended = regexp.MustCompile(`(?m)^guest: exit status (\d+)$`)

func clean(text []byte) string { return strings.ReplaceAll(string(text), "\r", "") }

// assemble writes the archive that the kernel unpacks: the modules, then the rest.
func assemble(ctx context.Context, cfg Config, dir, modules, initrd string) error {
	root := filepath.Join(dir, "root")
	if err := layout(root); err != nil {
		return err
	}
	for _, name := range append([]string{"mount", "umount"}, cfg.Programs...) {
		if err := program(ctx, root, name); err != nil {
			return err
		}
	}
	for to, from := range cfg.Files {
		if err := copyFile(from, filepath.Join(root, to)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"init": initScript, "command": script(cfg),
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hosts": "127.0.0.1 localhost\n" + Host + " host\n",
		"etc/nsswitch.conf": "hosts: files\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	out, err := os.Create(initrd)
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := os.Open(modules)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return archive(ctx, root, out)
}

// script is the command with its environment, for a shell.
func script(cfg Config) string {
	var b strings.Builder
	for _, v := range cfg.Env {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(value))
	}
	fmt.Fprintf(&b, "exec timeout -k 5 %d", int(cfg.Timeout/time.Second))
	for _, a := range cfg.Command {
		b.WriteString(" " + quote(a))
	}
	b.WriteString("\n")
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
