package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Times of the first process.
const (
	lived      = 10 * time.Second // a child that lived so long is started again at once
	firstWait  = 50 * time.Millisecond
	lastWait   = 10 * time.Second
	shellGrace = time.Second     // until shells, which ignore a request to end, are told that their terminal is gone
	userGrace  = 5 * time.Second // between a request to end and force
	runGrace   = 2 * time.Second // for the agent to report the last
)

// child is a process that is to run always.
type child struct {
	name    string
	argv    []string
	needs   string      // a file without which it is not started
	account string      // as whom it runs; empty: root
	ready   func() bool // it may be started; nil: always
	gone    func()      // called when it has ended; nil: nothing is to be done
	quiet   bool        // what it and users' programs below it say does not belong to what the machine says
	pid     int         // 0: not running
	started time.Time
	due     time.Time // when to start it again
	wait    time.Duration
}

// initMain is the machine's first process. It has no network and no configuration, and nothing that people
// send reaches it. When it ends, so does all that runs in the machine.
func initMain() int {
	prepareInit()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR)
	run := &child{name: "run", argv: []string{agentPath, "run"}}
	sshd := &child{name: "sshd", argv: []string{sshdPath, "-D", "-f", sshdConfig, "-E", sshdLog}, needs: sshdConfig}
	children := append([]*child{run, sshd}, desktops()...)
	timer := time.NewTimer(0)
	for {
		select {
		case <-timer.C:
		case sig := <-signals:
			switch sig {
			case syscall.SIGCHLD:
				reap(children)
			case syscall.SIGHUP: // from run: a configuration is there, or sshd's has changed
				for _, c := range children[1:] {
					c.due, c.wait = time.Now(), 0
				}
				if sshd.pid != 0 {
					_ = syscall.Kill(sshd.pid, syscall.SIGHUP)
				}
			default:
				shutdown(run, children[1:])
				return 0
			}
		}
		timer.Reset(startDue(children))
	}
}

// startDue starts what should run and does not, and says when to look again.
func startDue(children []*child) time.Duration {
	next := 24 * time.Hour
	for _, c := range children {
		if c.pid != 0 {
			continue
		}
		if _, err := os.Stat(c.needs); c.needs != "" && err != nil {
			continue
		}
		if time.Until(c.due) <= 0 {
			if c.ready == nil || c.ready() {
				c.start()
			} else {
				c.later()
			}
		}
		if c.pid == 0 {
			next = min(next, time.Until(c.due))
		}
	}
	return next
}

// start starts a child, in a session of its own so that signals for it do not reach the first process.
func (c *child) start() {
	c.started = time.Now()
	who, err := c.credential()
	if err != nil {
		c.ended(err.Error())
		return
	}
	files := []uintptr{0, 1, 2}
	if c.quiet {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			c.ended(err.Error())
			return
		}
		defer null.Close()
		files = []uintptr{null.Fd(), null.Fd(), null.Fd()}
	}
	pid, err := syscall.ForkExec(c.argv[0], c.argv, &syscall.ProcAttr{Env: os.Environ(), Dir: "/",
		Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Credential: who}})
	if err != nil {
		c.ended(err.Error())
		return
	}
	c.pid = pid
}

// ended notes that a child has ended and when to start it again: at once if it had lived, else ever later.
func (c *child) ended(how string) {
	c.pid = 0
	if time.Since(c.started) >= lived {
		c.wait = 0
	}
	fmt.Fprintf(os.Stderr, "shoal-agent init: %s has ended (%s); starting it again in %s\n", c.name, how, c.wait)
	c.later()
	if c.gone != nil {
		c.gone()
	}
}

// later puts off a start, ever longer.
func (c *child) later() {
	c.due = time.Now().Add(c.wait)
	c.wait = min(max(2*c.wait, firstWait), lastWait)
}

// reap takes all that has ended, children and orphans.
func reap(children []*child) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 { // with WNOHANG nothing interrupts it
			return
		}
		for _, c := range children {
			if c.pid == pid {
				c.ended(fmt.Sprintf("exit status %d, signal %d", status.ExitStatus(), status.Signal()))
			}
		}
	}
}

// shutdown ends the machine in order: no new logins, then what people run, a request first and then force,
// then the agent, which has reported how that ended meanwhile. What is left ends with the first process.
func shutdown(run *child, doors []*child) {
	for _, c := range doors {
		if c.pid != 0 {
			_ = syscall.Kill(c.pid, syscall.SIGTERM)
		}
	}
	asked := map[int]int{} // how many of the signals below a process was sent
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		reap(nil)
		pids := people()
		if len(pids) == 0 {
			break
		}
		steps := 1
		for _, after := range []time.Duration{shellGrace, userGrace} {
			if time.Since(began) > after {
				steps++
			}
		}
		for _, pid := range pids {
			for ; asked[pid] < steps; asked[pid]++ {
				_ = syscall.Kill(pid, signals[asked[pid]])
			}
		}
		if steps == 3 {
			break
		}
	}
	saveHomes()
	if run.pid == 0 {
		return
	}
	_ = syscall.Kill(run.pid, syscall.SIGTERM)
	for end := time.Now().Add(runGrace); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		reap(nil)
		if syscall.Kill(run.pid, 0) != nil {
			return
		}
	}
}

// saveHomes has local homes archived, where they are. Whoever asked for the end has allowed for it.
func saveHomes() {
	if _, err := os.Stat(rosterFile); err != nil {
		return
	}
	pid, err := syscall.ForkExec(agentPath, []string{agentPath, "homes"}, &syscall.ProcAttr{Env: []string{}, Dir: "/", Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent init: homes are not archived:", err)
		return
	}
	for end := time.Now().Add(lastTime + runGrace); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		reap(nil)
		if syscall.Kill(pid, 0) != nil {
			return
		}
	}
}

// people lists the processes that are not root's.
func people() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var out []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 {
			continue
		}
		status, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil || bytes.Contains(status, []byte("\nState:\tZ")) {
			continue
		}
		_, rest, ok := strings.Cut(string(status), "\nUid:\t")
		if ok && !strings.HasPrefix(rest, "0\t") {
			out = append(out, pid)
		}
	}
	return out
}
