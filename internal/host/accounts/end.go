package accounts

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shellGrace is how long a process may take to end by request. Shells ignore that and end
// when they are told that their terminal is gone, which others had better not be told at once.
const shellGrace = time.Second

// End ends all that runs as any of the uids: a request first, and force after grace. It returns once
// nothing is left or ctx ends.
func End(ctx context.Context, uids []int, grace time.Duration) error {
	began := time.Now()
	asked := map[int]int{} // how many of the signals below a process was sent
	signals := []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGKILL}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		pids := running(uids)
		if len(pids) == 0 {
			return nil
		}
		steps := 1
		switch after := time.Since(began); {
		case after >= grace:
			steps = 3
			clear(asked) // none may have slipped through
		case after >= shellGrace:
			steps = 2
		}
		if steps == len(signals) {
			killAs(ctx, uids)
		}
		for _, pid := range pids {
			for ; asked[pid] < steps; asked[pid]++ {
				// A process that has just gone is what is wanted; nothing else can fail for root.
				_ = unix.Kill(pid, signals[asked[pid]])
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// killAs kills all that runs as each of the uids, at once. Programs that start others faster than
// those can be listed would go on for ever otherwise: a process of the user's own that signals all it may
// leaves none of them out, and none of them can start another meanwhile.
func killAs(ctx context.Context, uids []int) {
	for _, uid := range uids {
		if uid <= 0 {
			continue
		}
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "kill -KILL -1")
		cmd.Dir, cmd.Env = "/", []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: nobody}}
		_ = cmd.Run() // what is left is seen by the caller
	}
}

// running lists the processes that have one of the uids as any of theirs.
func running(uids []int) []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e)
		if err != nil || pid == 1 {
			continue
		}
		status, err := os.ReadFile("/proc/" + e + "/status")
		if err != nil || bytes.Contains(status, []byte("\nState:\tZ")) {
			continue
		}
		for _, uid := range statusUIDs(status) {
			if slices.Contains(uids, uid) {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// statusUIDs reads the four uids out of /proc/PID/status.
func statusUIDs(status []byte) []int {
	_, rest, ok := bytes.Cut(status, []byte("\nUid:"))
	if !ok {
		return nil
	}
	l, _, _ := bytes.Cut(rest, []byte("\n"))
	var out []int
	for f := range bytes.FieldsSeq(l) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			out = append(out, n)
		}
	}
	return out
}
