package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/shoal-pool/shoal/internal/host/accounts"
)

// firstPerson is the uid from which on accounts are people's.
const firstPerson = 1000

// enterMain is the door. PAM calls it as root when a session of whatever program opens or closes; its parent
// is the process from which all processes of the session will come, so that one is put into the user's slice.
// A session is never refused for want of a slice: a person shut out is worse than one without limits.
func enterMain() int {
	user, what := os.Getenv("PAM_USER"), os.Getenv("PAM_TYPE")
	if user == "" {
		fmt.Fprintln(os.Stderr, "shoal-agent enter is called by PAM")
		return 2
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u, ok := accounts.FindUser(passwd, user)
	if !ok || u.UID < firstPerson {
		return 0
	}
	if what == "open_session" {
		if err := intoSlice(u.UID, os.Getppid()); err != nil {
			fmt.Fprintf(os.Stderr, "shoal-agent: %s has no slice: %v\n", user, err)
		}
	}
	knock()
	return 0
}

// knock tells the agent that somebody has come or gone. Without an agent nobody needs to know.
func knock() {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	_ = syscall.Sendto(fd, []byte{1}, syscall.MSG_DONTWAIT, &syscall.SockaddrUnix{Name: doorPath})
}
