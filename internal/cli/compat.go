package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/slurm"
	"github.com/shoal-pool/shoal/internal/cli/submit"
)

// compatCommand holds what lets scripts of other systems run here.
func (p *program) compatCommand() *cobra.Command {
	install := &cobra.Command{
		Use:   "slurm DIR",
		Short: "Write sbatch, squeue, sacct and the like into a directory",
		Long: `Write commands into DIR that answer as Slurm's do and run jobs on Shoal, for scripts and workflow engines that know Slurm.
Put DIR on PATH, and run them where the directory you are in is the same on the machines: on a share.

A partition is a pool, a job's number stays the same, and a task of an array is 12_3.`,
		Example: "  shoal compat slurm ~/slurm && PATH=~/slurm:$PATH sbatch train.sh",
		Args:    takes("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if err := slurm.Install(args[0], self); err != nil {
				return err
			}
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			p.say("%s are in %s; use them with: export PATH=%s:$PATH", strings.Join(slurm.Names(), ", "), dir, submit.Quote([]string{dir}))
			return nil
		},
	}
	run := &cobra.Command{Use: "exec NAME [ARG…]", Hidden: true, DisableFlagParsing: true, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, "%s needs NAME", cmd.CommandPath())
		}
		ctx, stop := p.interruptible(cmd.Context())
		defer stop()
		return ended(slurm.Main(ctx, args[0], args[1:], p.slurmWorld()))
	}}
	return parent("compat", "Commands of other systems that run jobs here", install, run)
}

func (p *program) slurmWorld() slurm.World {
	return slurm.World{
		Connect: p.connect,
		Follow: func(ctx context.Context, job shoal.Job) (int, error) {
			c, err := p.connect()
			if err != nil {
				return 1, err
			}
			return follow.Job(ctx, p.following(c, true, true), job)
		},
		Quote: submit.Quote, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Getenv: p.Getenv,
		Environ: os.Environ, Getwd: os.Getwd, Now: time.Now,
	}
}
