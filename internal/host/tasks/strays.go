package tasks

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Born is when a process started, as the kernel counts; zero if it is gone.
func Born(pid int) uint64 {
	f := StatFields(pid)
	const startTime = 22 - 3 // fields of proc(5) count from 1; ours begin with the third
	if len(f) <= startTime {
		return 0
	}
	n, _ := strconv.ParseUint(string(f[startTime]), 10, 64) // the kernel writes numbers
	return n
}

// StatFields are the fields of /proc/PID/stat from the third on: those after the name, which may hold anything.
func StatFields(pid int) [][]byte {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var buf [1024]byte
	n, _ := unix.Read(fd, buf[:])
	b := buf[:max(n, 0)]
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return nil
	}
	return bytes.Fields(b[i+1:])
}

// Strays lists the processes of a task where there are no control groups: those of its user in the sessions of
// the processes that were started for it, or with the task's scratch directory in their environment, which
// not every machine's root may read. A process that takes care to hide is not found.
func Strays(uid int, scratch string, firsts []Started) []int {
	var sessions []string
	for _, s := range firsts {
		// A session's number is not given out again while somebody is in it, but then it is.
		if b := Born(s.PID); s.PID > 0 && (b == 0 || b == s.Born) {
			sessions = append(sessions, strconv.Itoa(s.PID))
		}
	}
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	mark := []byte("SHOAL_SCRATCH=" + scratch)
	var out []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+name, &st) != nil || int(st.Uid) != uid {
			continue
		}
		f := StatFields(pid)
		if len(f) < 4 || f[0][0] == 'Z' || f[0][0] == 'X' {
			continue
		}
		if slices.Contains(sessions, string(f[3])) {
			out = append(out, pid)
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil || scratch == "" {
			continue
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(kv, mark) {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// KillStrays kills them, and those that they start meanwhile.
func KillStrays(uid int, scratch string, firsts []Started) {
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		pids := Strays(uid, scratch, firsts)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // what has just ended is as well
		}
		time.Sleep(wait)
	}
}
