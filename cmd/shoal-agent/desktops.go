package main

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/desktop"
)

// desktops are the programs that give remote desktops. They run once the agent has configured them.
func desktops() []*child {
	sesman, xrdp := desktop.SesmanConfig(desktopDir), desktop.XRDPConfig(desktopDir)
	return []*child{
		{name: "xrdp-sesman", argv: []string{desktop.Sesman, "--nodaemon", "--config", sesman}, needs: xrdp, gone: endXRDP, quiet: true},
		{name: "xrdp", argv: []string{desktop.XRDP, "--nodaemon", "--config", xrdp}, needs: xrdp, account: desktop.Account, ready: sesmanListens},
	}
}

// sesmanListens reports whether it is root's program that listens where xrdp takes people's passwords to. Any user could
// listen there while sesman does not.
func sesmanListens() bool {
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/net/" + name)
		if err == nil && desktop.RootListens(text, desktop.SesmanPort) {
			return true
		}
	}
	return false
}

// endXRDP ends all of xrdp, also what serves connections: it would go on with whoever comes to listen in sesman's
// place. Desktops stay, and are found again.
func endXRDP() {
	owner, ok := account(desktop.Account)
	if !ok {
		return
	}
	for _, pid := range people() {
		var st syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil && int(st.Uid) == owner.UID {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// repaintMain is started by a user's desktop, and ends with it.
func repaintMain() int {
	if err := desktop.Repaint(context.Background(), os.Getenv("DISPLAY")); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent:", err)
		return 1
	}
	return 0
}

// credential is as whom a child runs; nil: root.
func (c *child) credential() (*syscall.Credential, error) {
	if c.account == "" {
		return nil, nil
	}
	u, ok := account(c.account)
	if !ok {
		return nil, fmt.Errorf("there is no account %s", c.account)
	}
	return &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}, nil
}

// account finds one of the machine's own accounts.
func account(name string) (desktop.Owner, bool) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return desktop.Owner{}, false
	}
	u, ok := accounts.FindUser(passwd, name)
	return desktop.Owner{UID: u.UID, GID: u.GID}, ok
}
