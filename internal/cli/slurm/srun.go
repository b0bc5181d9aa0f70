package slurm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/shoal-pool/shoal"
)

// srun starts a command on the nodes of the job it is called in; outside of one it submits a job and follows it.
func (c *command) srun(ctx context.Context, args []string) error {
	o := options{}
	rest, ignored, err := c.parse(&o, args)
	if err != nil {
		return err
	}
	c.leaveOut(o, ignored)
	switch {
	case o.help:
		c.say("Usage: srun [OPTIONS...] COMMAND [ARGS...]")
		return nil
	case len(rest) == 0:
		return shoal.Errorf(shoal.KindInvalid, "No command given to execute.")
	case slices.Contains(args, "--pty"):
		return shoal.Errorf(shoal.KindInvalid, "cannot start a terminal in a job").WithHint("log in to the pool: `shoal ssh POOL`")
	}
	if c.Getenv("SLURM_JOB_ID") != "" {
		return c.steps(ctx, o, rest)
	}
	c.environmentOptions(&o)
	if o.name == "" {
		o.name = rest[0][strings.LastIndexByte(rest[0], '/')+1:]
	}
	spec, err := c.spec(o)
	if err != nil {
		return err
	}
	spec.Command = c.Quote(rest)
	if n, _ := strconv.Atoi(spec.Env["SLURM_NTASKS"]); n > 1 {
		step := "shoal compat exec srun -n " + strconv.Itoa(n)
		if o.label {
			step += " -l"
		}
		if o.killOnBadExit {
			step += " -K"
		}
		spec.Command = step + " " + spec.Command
	}
	job, err := c.submit(ctx, o, spec)
	if err != nil {
		return err
	}
	c.note("job %s queued and waiting for resources", job.ID)
	code, err := c.Follow(ctx, job)
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

// steps runs a command as tasks on the nodes of the job that this is part of.
func (c *command) steps(ctx context.Context, o options, args []string) error {
	nodes := strings.Fields(c.Getenv("SHOAL_NODES"))
	if len(nodes) == 0 {
		nodes = []string{c.Getenv("SLURMD_NODENAME")}
	}
	if o.nodes != "" {
		n, err := shoal.ParseNodes(o.nodes)
		if err != nil || n.Min > len(nodes) {
			return shoal.Errorf(shoal.KindInvalid, "Requested node configuration is not available: the job has %d nodes", len(nodes))
		}
		nodes = nodes[:min(n.Max, len(nodes))]
	}
	tasks := o.tasks
	if tasks == 0 && o.perNode > 0 {
		tasks = o.perNode * len(nodes)
	}
	if tasks == 0 && o.nodes != "" {
		tasks = len(nodes)
	}
	if tasks == 0 {
		tasks, _ = strconv.Atoi(c.Getenv("SLURM_NTASKS"))
	}
	tasks = max(tasks, 1)
	nodes = nodes[:min(len(nodes), tasks)]
	if len(nodes) > 1 && !slices.Contains(nodes, c.Getenv("SLURMD_NODENAME")) {
		return shoal.Errorf(shoal.KindInvalid, "cannot reach the job's other nodes from here")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &lines{w: c.Stdout}
	errs := &lines{w: c.Stderr}
	codes := make([]int, tasks)
	var wait sync.WaitGroup
	for i := range tasks {
		node := i * len(nodes) / tasks // in blocks
		first := (node*tasks + len(nodes) - 1) / len(nodes)
		p := process{command: c, args: args, node: nodes[node], nodeID: node, rank: i, local: i - first, tasks: tasks}
		wait.Go(func() {
			label := ""
			if o.label {
				label = fmt.Sprintf("%*d: ", len(strconv.Itoa(tasks-1)), i)
			}
			codes[i] = p.run(ctx, out, errs, label, tasks == 1)
			if codes[i] != 0 && o.killOnBadExit {
				cancel()
			}
		})
	}
	wait.Wait()
	if worst := slices.Max(codes); worst != 0 {
		if tasks > 1 {
			c.note("error: %s: task %d: Exited with exit code %d", nodes[0], slices.Index(codes, worst), worst)
		}
		return exitCode(worst)
	}
	return nil
}

// process is one task of a step.
type process struct {
	*command
	args                       []string
	node                       string
	nodeID, rank, local, tasks int
}

func (p process) variables() []string {
	return []string{"SLURM_PROCID=" + strconv.Itoa(p.rank), "SLURM_LOCALID=" + strconv.Itoa(p.local), "SLURM_NODEID=" + strconv.Itoa(p.nodeID),
		"SLURM_NTASKS=" + strconv.Itoa(p.tasks), "SLURM_NPROCS=" + strconv.Itoa(p.tasks), "SLURM_STEP_NUM_TASKS=" + strconv.Itoa(p.tasks),
		"SLURM_STEP_ID=0", "SLURMD_NODENAME=" + p.node}
}

// run executes the task, here or by ssh on another node of the job, and returns its exit code.
func (p process) run(ctx context.Context, out, errs *lines, label string, alone bool) int {
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	if here := p.Getenv("SLURMD_NODENAME"); here != "" && p.node != here {
		dir, err := p.Getwd()
		if err != nil {
			p.note("error: %v", err)
			return 1
		}
		words := []string{"env"}
		for _, line := range append(p.Environ(), p.variables()...) {
			if name, _, _ := strings.Cut(line, "="); carried(name) {
				words = append(words, line)
			}
		}
		remote := "cd " + p.Quote([]string{dir}) + " && exec " + p.Quote(append(words, p.args...))
		cmd = exec.CommandContext(ctx, "ssh", "-o", "BatchMode=yes", p.node, remote)
	} else {
		cmd.Env = append(p.Environ(), p.variables()...)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if alone {
		cmd.Stdin = p.Stdin
	}
	if alone && label == "" {
		cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
		return p.code(cmd.Run())
	}
	var pipes sync.WaitGroup
	for _, s := range []struct {
		from func() (io.ReadCloser, error)
		to   *lines
	}{{cmd.StdoutPipe, out}, {cmd.StderrPipe, errs}} {
		r, err := s.from()
		if err != nil {
			p.note("error: %v", err)
			return 1
		}
		pipes.Go(func() { s.to.copy(r, label) })
	}
	if err := cmd.Start(); err != nil {
		return p.code(err)
	}
	pipes.Wait()
	return p.code(cmd.Wait())
}

// carried reports whether a variable of the job is set for its tasks on other nodes as well.
func carried(name string) bool {
	switch name {
	case "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "HOSTNAME", "TMPDIR":
		return false
	}
	return name != "" && !strings.HasPrefix(name, "SSH_") && !strings.Contains(name, "%")
}

func (p process) code(err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		if s, ok := ended.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return 128 + int(s.Signal())
		}
		return ended.ExitCode()
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		p.note("error: execve(): %s: No such file or directory", p.args[0])
		return 2
	}
	p.note("error: %v", err)
	return 1
}

// lines writes whole lines of several writers to one.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) copy(r io.Reader, label string) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			l.mu.Lock()
			_, _ = io.WriteString(l.w, label)
			_, _ = l.w.Write(line)
			if line[len(line)-1] != '\n' && err != bufio.ErrBufferFull {
				_, _ = io.WriteString(l.w, "\n")
			}
			l.mu.Unlock()
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}
