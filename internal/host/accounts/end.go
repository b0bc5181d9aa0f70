package accounts

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// End ends all that runs as any of the uids: a request first, and force after grace. It returns once
// nothing is left or ctx ends.
func End(ctx context.Context, uids []int, grace time.Duration) error {
	started := time.Now()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		pids := running(uids)
		if len(pids) == 0 {
			return nil
		}
		force := time.Since(started) >= grace
		for _, pid := range pids {
			// A process that has just gone is what is wanted; nothing else can fail for root.
			if force {
				_ = unix.Kill(pid, unix.SIGKILL)
				continue
			}
			_ = unix.Kill(pid, unix.SIGTERM)
			_ = unix.Kill(pid, unix.SIGHUP) // shells ignore the former
			_ = unix.Kill(pid, unix.SIGCONT)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
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
