package slurm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// World is what a command runs in.
type World struct {
	Connect func() (*client.Client, error)
	// Follow shows a job's output until its end, and returns its exit code.
	Follow func(ctx context.Context, job shoal.Job) (int, error)
	// Quote writes arguments as words for a shell.
	Quote   func(args []string) string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Environ func() []string
	Getwd   func() (string, error)
	Now     func() time.Time
}

// command is one of the commands while it runs.
type command struct {
	World
	name string
}

// Names are the commands that there are.
func Names() []string {
	return []string{"sbatch", "squeue", "sacct", "scancel", "scontrol", "srun", "sinfo", "sacctmgr"}
}

// version is the one whose manual pages we follow.
const version = "22.05.8"

// Main runs a command and returns its exit code.
func Main(ctx context.Context, name string, args []string, w World) int {
	c := &command{World: w, name: name}
	run := map[string]func(context.Context, []string) error{
		"sbatch": c.sbatch, "squeue": c.squeue, "sacct": c.sacct, "scancel": c.scancel,
		"scontrol": c.scontrol, "srun": c.srun, "sinfo": c.sinfo, "sacctmgr": c.sacctmgr,
	}[name]
	if run == nil {
		fmt.Fprintf(w.Stderr, "shoal: error: there is no command %s; there are %s\n", name, strings.Join(Names(), ", "))
		return 1
	}
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-V") {
		c.say("slurm %s, spoken by Shoal", version)
		return 0
	}
	err := run(ctx, args)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(w.Stderr, "%s: error: %v\n", name, err)
	for _, m := range shoal.MistakesOf(err) {
		fmt.Fprintf(w.Stderr, "%s: error: %s: %s\n", name, m.Path, m.Msg)
	}
	if hint := shoal.HintOf(err); hint != "" {
		fmt.Fprintf(w.Stderr, "%s: %s\n", name, hint)
	}
	return 1
}

// exitCode is an end that needs no words.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// note says something that does not stop the command.
func (c *command) note(format string, args ...any) {
	fmt.Fprintf(c.Stderr, c.name+": "+format+"\n", args...)
}

func (c *command) say(format string, args ...any) { fmt.Fprintf(c.Stdout, format+"\n", args...) }

// Install writes the commands into a directory, which is made if it is not there. What stands there under
// the name of a command and was not written by Install is left alone and is an error.
func Install(dir, program string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot install into %s: %w", dir, err)
	}
	const mark = "# Runs a command of Slurm on Shoal."
	for _, name := range Names() {
		path := filepath.Join(dir, name)
		old, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(old), mark) {
			return shoal.Errorf(shoal.KindConflict, "cannot install %s: something else is there", path).WithHint("choose an empty directory")
		}
		text := fmt.Sprintf("#!/bin/sh\n%s\nexec \"$(command -v shoal || echo '%s')\" compat exec %s \"$@\"\n", mark, strings.ReplaceAll(program, "'", `'\''`), name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return shoal.Errorf(shoal.KindInvalid, "cannot install %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return shoal.Errorf(shoal.KindInvalid, "cannot install %s: %w", path, err)
		}
	}
	return nil
}

// stateOf are the words for a state, long and short.
func stateOf(s shoal.JobState, cause shoal.Cause) (long, short string) {
	switch s {
	case shoal.JobQueued:
		return "PENDING", "PD"
	case shoal.JobStarting:
		return "CONFIGURING", "CF"
	case shoal.JobRunning:
		return "RUNNING", "R"
	case shoal.JobSucceeded:
		return "COMPLETED", "CD"
	case shoal.JobCancelled:
		return "CANCELLED", "CA"
	case shoal.JobTimedOut:
		return "TIMEOUT", "TO"
	case shoal.JobPreempted:
		return "PREEMPTED", "PR"
	case shoal.JobLost:
		return "NODE_FAIL", "NF"
	}
	switch cause {
	case shoal.CauseOOM:
		return "OUT_OF_MEMORY", "OOM"
	case shoal.CauseMachineLost:
		return "NODE_FAIL", "NF"
	case shoal.CausePreempted:
		return "PREEMPTED", "PR"
	}
	return "FAILED", "F"
}

// elapsed writes a time as Slurm does: 1-02:03:04; short leaves out hours that are none.
func elapsed(d time.Duration, short bool) string {
	s := int64(max(d, 0) / time.Second)
	days, h, m, s := s/86400, s/3600%24, s/60%60, s%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d-%02d:%02d:%02d", days, h, m, s)
	case short && h == 0:
		return fmt.Sprintf("%d:%02d", m, s)
	case short:
		return fmt.Sprintf("%d:%02d:%02d", h, m, s)
	}
	return fmt.Sprintf("%02d:%02d:%02d", h, m, s)
}

// stamp writes a point in time as Slurm does.
func stamp(t time.Time, none string) string {
	if t.IsZero() {
		return none
	}
	return t.Local().Format("2006-01-02T15:04:05")
}

// megabytes writes an amount of memory as Slurm does.
func megabytes(b shoal.Bytes) string {
	if b > 0 && b%(1<<30) == 0 {
		return fmt.Sprintf("%dG", b>>30)
	}
	return fmt.Sprintf("%dM", b>>20)
}

// words splits lists as they are given to options: by comma, empty ones left out.
func words(lists ...string) []string {
	var all []string
	for _, list := range lists {
		for word := range strings.SplitSeq(list, ",") {
			if word = strings.TrimSpace(word); word != "" {
				all = append(all, word)
			}
		}
	}
	return all
}

// matches reports whether a word is in a list; an empty list holds all.
func matches(list []string, word ...string) bool {
	if len(list) == 0 {
		return true
	}
	return slices.ContainsFunc(list, func(s string) bool {
		return slices.ContainsFunc(word, func(w string) bool { return strings.EqualFold(s, w) })
	})
}
