package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// openFiles is how many files a program may have open unless it asks for more, up to what the machine got. It
// is enough for sshd with all channels that a gateway puts on one connection. It is no larger because many
// programs close all that they could have open when they start another, PAM's door among them: with the
// million that some hosts allow, that takes longer than the login.
const openFiles = 8192

// prepareInit makes the first process small, and the machine as those that it starts should find it.
func prepareInit() {
	syscall.Umask(0o022) // whatever the provider had: accounts are to read what lies in /run/shoal
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(6 << 20)
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil {
		limit.Cur = min(openFiles, limit.Max)
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent init: cannot limit open files:", err)
	}
	if err := cgroups.Settle(cgroups.Config{}); err != nil { // run finds out what that means for users
		fmt.Fprintln(os.Stderr, "shoal-agent init:", err)
	}
}
