package activity

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// proc is one process.
type proc struct {
	pid, ppid int
	uid       int // the real one
	name      string
	args      string // its arguments, separated by blanks; only of programs that are told apart by them
	tty       bool
	task      bool // an sshd's half that serves the nodes of a task, not its user
	born      uint64
	used      uint64 // ticks
	// Of a notebook's kernel, as its server says: it computes nothing, and when it last did.
	waits bool
	last  time.Time
	visit process // the connection that it belongs to, if judge found one
}

// scan reads all processes but the kernel's own.
func (w *Watcher) scan() ([]proc, error) {
	d, err := os.Open(w.cfg.proc)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	procs := make([]proc, 0, 64)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		dir := w.cfg.proc + "/" + name
		p, ok := parseStat(slurp(dir+"/stat", buf))
		if !ok || p.pid != pid {
			continue // it has ended meanwhile, or is the kernel's
		}
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil {
			continue
		}
		p.uid = int(st.Uid)
		if p.uid == 0 {
			// What holds secrets (sshd, ssh-agent) looks as if it were root's.
			if uid, ok := parseUID(slurp(dir+"/status", buf)); ok {
				p.uid = uid
			}
		}
		if sshd(p.name) && p.uid != 0 {
			p.task = inTask(slurp(dir+"/cgroup", buf))
		}
		if toldByArgs(p.name) {
			p.args = strings.ReplaceAll(string(slurp(dir+"/cmdline", buf)), "\x00", " ")
		}
		procs = append(procs, p)
	}
	return procs, nil
}

// slurp reads the beginning of a file into buf.
func slurp(path string, buf []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buf)
	return buf[:max(n, 0)]
}

// parseStat reads /proc/PID/stat. It is not ok for dead processes and the kernel's own.
func parseStat(b []byte) (proc, bool) {
	var p proc
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')') // the name may hold anything
	if open < 1 || end < open {
		return p, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	f := bytes.Fields(b[end+1:])
	const vsize = 23 - 3 // fields of proc(5) count from 1; ours begin with the third
	if err != nil || len(f) <= vsize || f[0][0] == 'Z' || f[0][0] == 'X' || string(f[vsize]) == "0" {
		return p, false
	}
	number := func(i int) uint64 {
		n, _ := strconv.ParseUint(string(f[i-3]), 10, 64) // negative ones are of no interest
		return n
	}
	p.pid, p.name = pid, string(b[open+1:end])
	p.ppid, p.tty = int(number(4)), number(7) != 0
	p.used, p.born = number(14)+number(15), number(22)
	return p, true
}

// inTask reports whether /proc/PID/cgroup is that of a process in a task's control group: u20001/17.0.1, where a login's
// is u20001/login. See package cgroups.
func inTask(b []byte) bool {
	for l := range bytes.Lines(b) {
		l = bytes.TrimSpace(l)
		i := bytes.LastIndexByte(l, '/')
		if i < 0 || string(l[i+1:]) == "login" {
			continue
		}
		slice := l[:i]
		slice = slice[bytes.LastIndexByte(slice, '/')+1:]
		if len(slice) > 1 && slice[0] == 'u' && len(bytes.Trim(slice[1:], "0123456789")) == 0 {
			return true
		}
	}
	return false
}

// parseUID reads the real uid from /proc/PID/status.
func parseUID(b []byte) (int, bool) {
	_, rest, ok := bytes.Cut(b, []byte("\nUid:\t"))
	if !ok {
		return 0, false
	}
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	uid, err := strconv.Atoi(string(rest[:n]))
	return uid, err == nil
}
