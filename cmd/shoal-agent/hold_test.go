package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// held is a session that stays open: a shell at the other end of a real ssh.
type held struct {
	t     testing.TB
	user  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	done  chan error
}

func (w *world) hold(addr, user string) *held {
	w.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &held{t: w.t, user: user, lines: make(chan string, 100), done: make(chan error, 1),
		cmd: exec.Command("ssh", append(w.person(user+"@lab"), "-p", port, user+"@"+host, "bash")...)}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	h.cmd.Stderr = testLog{w.t}
	if err := h.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			h.lines <- scan.Text()
		}
		h.done <- h.cmd.Wait()
	}()
	w.t.Cleanup(func() { _ = h.cmd.Process.Kill() })
	h.says("here", "here")
	return h
}

// says has the shell echo something and waits for it.
func (h *held) says(what, want string) {
	h.t.Helper()
	if got := h.answer("echo " + what); got != want {
		h.t.Errorf("the session of %s says %q, want %q", h.user, got, want)
	}
}

// answer is the first line of what a command says.
func (h *held) answer(command string) string {
	h.t.Helper()
	fmt.Fprintln(h.stdin, command)
	select {
	case got := <-h.lines:
		return strings.TrimSpace(got)
	case err := <-h.done:
		h.t.Fatalf("the session of %s has ended: %v", h.user, err)
	case <-time.After(patience):
		h.t.Fatalf("the session of %s does not answer", h.user)
	}
	return ""
}

// ended waits for the end of a session that somebody else ends.
func (h *held) ended() {
	h.t.Helper()
	select {
	case <-h.done:
	case <-time.After(patience):
		h.t.Errorf("the session of %s has not ended", h.user)
	}
}

// end ends it.
func (h *held) end() {
	h.t.Helper()
	h.stdin.Close()
	h.ended()
}
