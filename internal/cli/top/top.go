// Package top shows pools, machines, sessions and jobs as they are, again and again.
package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

const (
	shownJobs = 100 // at most, in each state
	quickest  = shoal.Duration(200 * time.Millisecond)
	patience  = 2 * time.Second // with an answer, before it is said that there is none
)

// Env is what the command needs of the program it is a part of.
type Env struct {
	Connect       call.Connect
	In            io.Reader
	Out           io.Writer
	Interruptible func(context.Context) (context.Context, context.CancelFunc)
	NoArgs        cobra.PositionalArgs
	Pools         func(cmd *cobra.Command, flag string) // completes names of pools
}

// Command is `shoal top`.
func Command(e Env) *cobra.Command {
	every := shoal.Duration(2 * time.Second)
	var pool shoal.PoolName
	cmd := &cobra.Command{
		Use: "top", Short: "Watch pools, machines, sessions and jobs",
		Long: `Show the pools, their machines, who is there, and which jobs run or wait, as it is now; on a terminal until q or Ctrl-C. What does
not fit on the screen is counted.`,
		Args: e.NoArgs,
	}
	cmd.Flags().VarP(flags.Duration{Value: &every}, "every", "n", "look again after this `TIME`")
	cmd.Flags().StringVarP((*string)(&pool), "pool", "p", "", "of `POOL` only")
	e.Pools(cmd, "pool")
	cmd.RunE = e.Connect.Run(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		ctx, stop := e.Interruptible(cmd.Context())
		defer stop()
		look := func(ctx context.Context) ([]section, error) { return look(ctx, c, pool) }
		in, isFile := e.In.(*os.File)
		out, isFileToo := e.Out.(*os.File)
		if !isFile || !isFileToo || !term.Is(in) || !term.Is(out) {
			all, err := look(ctx)
			if err == nil {
				_, err = io.WriteString(e.Out, strings.Join(fit(all, 0), "\n")+"\n")
			}
			return err
		}
		return watch(ctx, in, out, time.Duration(max(every, quickest)), look)
	})
	return cmd
}

// watch shows what look finds until somebody has enough. While the server does not answer, what it said last stays.
func watch(ctx context.Context, in, out *os.File, every time.Duration, look func(context.Context) ([]section, error)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, err := look(ctx) // what is wrong from the beginning is an error like any other
	if err != nil {
		return err
	}
	s, err := term.OpenScreen(in, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	answers := ask(ctx, every, look)
	heard, trouble := time.Now(), ""
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if silent := time.Since(heard); silent > every+patience {
			trouble = "   the server has not answered for " + term.Span(silent)
		}
		_, height := s.Size()
		head := time.Now().Format(time.TimeOnly) + "   every " + every.String() + ", q ends" + trouble
		if err := s.Show(append([]string{head, ""}, fit(all, height-2)...)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case key, ok := <-s.Keys:
			if !ok || slices.Contains([]byte{'q', 'Q', 3, 4}, key) { // Ctrl-C, Ctrl-D
				return nil
			}
		case <-tick.C:
		case a := <-answers:
			heard, trouble = time.Now(), ""
			if a.err != nil {
				trouble = "   " + a.err.Error()
			} else {
				all = a.all
			}
		}
	}
}

type answer struct {
	all []section
	err error
}

// ask looks again and again.
func ask(ctx context.Context, every time.Duration, look func(context.Context) ([]section, error)) <-chan answer {
	answers := make(chan answer)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
			all, err := look(ctx)
			select {
			case <-ctx.Done():
				return
			case answers <- answer{all, err}:
			}
		}
	}()
	return answers
}

// section is a table: its header and its rows.
type section []string

// look asks for everything that is shown.
func look(ctx context.Context, c *client.Client, pool shoal.PoolName) ([]section, error) {
	pools, err := c.Pools(ctx)
	if err != nil {
		return nil, err
	}
	if pool != "" {
		one, err := c.Pool(ctx, pool)
		if err != nil {
			return nil, err
		}
		pools = []shoal.Pool{one}
	}
	machines, err := c.Machines(ctx, client.MachineQuery{Pool: pool})
	if err != nil {
		return nil, err
	}
	sessions, err := c.Sessions(ctx, client.SessionQuery{Pool: pool})
	if err != nil {
		return nil, err
	}
	var jobs []shoal.Job
	for _, state := range []shoal.JobState{shoal.JobRunning, shoal.JobStarting, shoal.JobQueued} {
		some, err := c.Jobs(ctx, client.JobQuery{Pool: pool, State: state, Limit: shownJobs})
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, some...)
	}
	return tables(
		func(w io.Writer) error { return show.Pools(w, show.Table, pools, machines) },
		func(w io.Writer) error { return show.Machines(w, show.Table, machines) },
		func(w io.Writer) error { return show.Sessions(w, show.Table, sessions) },
		func(w io.Writer) error { return show.Jobs(w, show.Table, jobs) })
}

// tables are those of what is there: a table of nothing is left out, but for the first.
func tables(write ...func(io.Writer) error) ([]section, error) {
	var all []section
	for _, w := range write {
		var b bytes.Buffer
		if err := w(&b); err != nil {
			return nil, err
		}
		if lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n"); len(lines) > 1 || len(all) == 0 {
			all = append(all, lines)
		}
	}
	return all, nil
}

// fit puts sections below each other, in as many lines; 0 means as many as there are. The longest give way first, and say how much they
// leave out.
func fit(all []section, height int) []string {
	kept := make([]int, len(all))
	total := -1 // a blank line before each but the first
	for i, s := range all {
		kept[i] = len(s)
		total += len(s) + 1
	}
	for ; height > 0 && total > height; total-- {
		longest := 0
		for i, n := range kept {
			if n > kept[longest] {
				longest = i
			}
		}
		if kept[longest] <= 2 {
			break
		}
		kept[longest]--
	}
	var lines []string
	for i, s := range all {
		if i > 0 {
			lines = append(lines, "")
		}
		if kept[i] == len(s) {
			lines = append(lines, s...)
			continue
		}
		lines = append(append(lines, s[:kept[i]-1]...), fmt.Sprintf("… and %d more", len(s)-kept[i]+1))
	}
	return lines
}
