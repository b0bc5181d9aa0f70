package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
)

// Bounds of a setup command.
const (
	setupTime = 10 * time.Minute // unless the pool says otherwise
	setupTail = 8 << 10          // of its log, in a report
	setupLog  = "/var/log/shoal-setup.log"
)

// setupRun is a setup command under way, or one that has succeeded.
type setupRun struct {
	Command string `json:"command"`
	PID     int    `json:"pid"`
	Start   string `json:"start"` // of the process, as the kernel counts
	Done    bool   `json:"done"`
}

// Setup runs the setup command once per machine. Its log stays in the machine.
func (m *machine) Setup(ctx context.Context, setup shoal.Setup) (string, error) {
	file := filepath.Join(m.state, "setup.json")
	var last setupRun
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &last) == nil {
		if last.Done && last.Command == setup.Command {
			return "", nil
		}
		if !last.Done && last.PID > 1 && startOf(last.PID) == last.Start {
			_ = syscall.Kill(-last.PID, syscall.SIGKILL) // of an agent that has died; begun anew
		}
	}
	limit := time.Duration(setup.Timeout)
	if limit <= 0 {
		limit = setupTime
	}
	log, err := os.OpenFile(setupLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return "", fmt.Errorf("cannot run the setup command: %w", err)
	}
	defer log.Close()
	fmt.Fprintf(log, "# %s: %s\n", time.Now().UTC().Format(time.RFC3339), setup.Command)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.Command("/bin/sh", "-c", setup.Command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = append(os.Environ(), "HOME=/root", "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("cannot run the setup command: %w", err)
	}
	if err := writeSetup(file, setupRun{Command: setup.Command, PID: cmd.Process.Pid, Start: startOf(cmd.Process.Pid)}); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	stop()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return tail(setupLog), shoal.Errorf(shoal.KindUnavailable, "the setup command did not end within %s", shoal.Duration(limit)).
			WithHint("its log is below; give it more time by setup.timeout")
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return tail(setupLog), shoal.Errorf(shoal.KindInvalid, "the setup command failed: %w", err).WithHint("its log is below")
	}
	return "", writeSetup(file, setupRun{Command: setup.Command, Done: true})
}

func writeSetup(file string, r setupRun) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// startOf is when a process started, as the kernel counts; empty if there is none.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return ""
	}
	return f[19]
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(b) > setupTail {
		b = b[len(b)-setupTail:]
	}
	return strings.ToValidUTF8(string(b), "?")
}
