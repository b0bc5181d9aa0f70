package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/localdisk"
	"github.com/shoal-pool/shoal/internal/host/passes"
	"github.com/shoal-pool/shoal/internal/host/vault"
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
	key, byKey := byPass(os.Getenv("SSH_AUTH_INFO_0"))
	switch {
	case what != "open_session":
		openVault().Went(shoal.UserName(user), os.Getppid())
		visited(shoal.UserName(user))
	case byKey:
		if err := intoTask(u, key, os.Getppid()); err != nil {
			// sshd would go on without us. A login that belongs to no attempt must not be.
			fmt.Fprintf(os.Stderr, "shoal-agent: %s came by the key of a task: %v\n", user, err)
			_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
			return 1
		}
		return 0 // nobody has come: the task was here before
	default:
		if err := intoSlice(u.UID, os.Getppid()); err != nil {
			fmt.Fprintf(os.Stderr, "shoal-agent: %s has no slice: %v\n", user, err)
		}
		if err := localdisk.Make(u.UID, u.GID); err != nil {
			fmt.Fprintf(os.Stderr, "shoal-agent: %s has nothing on the machine's own disk: %v\n", user, err)
		}
		mourn(shoal.UserName(user))
		greet(shoal.UserName(user))
		unlock(vault.Owner{User: shoal.UserName(user), UID: u.UID, GID: u.GID})
		visited(shoal.UserName(user))
	}
	knock()
	return 0
}

// byPass finds in what sshd tells of a login the plain key that it was by. People come with certificates, so a
// plain key is one of a task's.
func byPass(info string) (key string, ok bool) {
	for l := range strings.Lines(info) {
		f := strings.Fields(l)
		if len(f) >= 3 && f[0] == "publickey" && !strings.Contains(f[1], "-cert-") {
			return f[1] + " " + f[2], true
		}
	}
	return "", false
}

// intoTask puts a process into the control group of the attempt that a key is for.
func intoTask(u accounts.User, key string, pid int) error {
	name, ok := passes.At(passes.Dir).Of(u.Name, key)
	if !ok {
		return errors.New("it has ended")
	}
	tree, err := userSlices()
	if err != nil {
		return err
	}
	return tree.Find(u.UID, name).Add(pid)
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
