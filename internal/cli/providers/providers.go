// Package providers are the commands for who writes an executable that makes machines. They run it themselves and ask no server.
package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/providers/program"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/providertest"
	"github.com/shoal-pool/shoal/provider/wire"
)

// Env is the command line that the commands are part of.
type Env struct {
	Say           func(format string, args ...any) // a result
	Interruptible func(context.Context) (context.Context, context.CancelFunc)
}

// Command makes `shoal provider`.
func Command(env Env, parent func(use, short string, children ...*cobra.Command) *cobra.Command, takes func(...string) cobra.PositionalArgs) *cobra.Command {
	return parent("provider", "Check executables that make machines", env.check(takes("EXECUTABLE")), env.schema(takes("EXECUTABLE")))
}

func (env Env) schema(args cobra.PositionalArgs) *cobra.Command {
	return &cobra.Command{
		Use:   "schema EXECUTABLE",
		Short: "Print the JSON Schema of a provider's settings: what a pool's providerConfig can hold",
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := env.Interruptible(cmd.Context()) // the executable has a process group of its own, and would be left behind
			defer stop()
			return env.with(ctx, args[0], func(p *program.Provider, cfg program.Config) error {
				d, err := describe(ctx, p, cfg)
				if err != nil {
					return err
				}
				if len(d.Settings) == 0 {
					d.Settings = json.RawMessage(`{"type":"object","additionalProperties":false}`)
				}
				var text bytes.Buffer
				if err := json.Indent(&text, d.Settings, "", "  "); err != nil {
					return err
				}
				for line := range strings.Lines(text.String()) {
					env.Say("%s", strings.TrimRight(line, "\n"))
				}
				return nil
			})
		},
	}
}

func (env Env) check(args cobra.PositionalArgs) *cobra.Command {
	var file string
	var only []string
	patience := shoal.Duration(2 * time.Minute)
	cmd := &cobra.Command{
		Use:   "check EXECUTABLE [-f POOL.yaml]",
		Short: "See whether an executable keeps what a provider of machines promises",
		Long: `Run an executable as the server would, and try all that docs/reference/provider-protocol.md promises of it: machines are really
made, stopped and deleted, a few at a time. What is left when it ends, or is interrupted, is deleted.

The machines are like those of the pool in the file; without one they have one processor, 1 GiB of memory, no image and no settings.
They have no server to join, so their agents wait in vain.`,
		Example: "  shoal provider check /usr/local/lib/shoal/mycloud -f lab.yaml",
		Args:    args,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range only {
				if !slices.Contains(names(), name) {
					return shoal.Errorf(shoal.KindInvalid, "there is no check %q", name).WithHint("there are %s", strings.Join(names(), ", "))
				}
			}
			like, err := machineOf(file)
			if err != nil {
				return err
			}
			ctx, stop := env.Interruptible(cmd.Context())
			defer stop()
			return env.with(ctx, args[0], func(p *program.Provider, cfg program.Config) error {
				return env.checkAll(ctx, p, cfg, like, time.Duration(patience), only)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "a `FILE` with the pool whose machines are made")
	cmd.Flags().Var(flags.Duration{Value: &patience}, "patience", "how long a machine may take to start, stop or go")
	cmd.Flags().StringSliceVar(&only, "only", nil, "the `NAMES` of the checks to make, with commas between them")
	return cmd
}

// with opens an executable with a directory and a tag for this once.
func (env Env) with(ctx context.Context, path string, do func(*program.Provider, program.Config) error) (err error) {
	if !strings.Contains(path, "/") {
		path = "./" + path
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return shoal.Errorf(shoal.KindNotFound, "%s is no executable file", path)
	}
	dir, err := os.MkdirTemp("", "shoal-provider-check-")
	if err != nil {
		return err
	}
	defer func() {
		if shoal.KindOf(err) != shoal.KindConflict { // what is left may need it
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	control := filepath.Join(dir, "control")
	if err := os.Mkdir(control, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := program.Config{Path: path, Dir: filepath.Join(dir, "provider"), Installation: "check-" + shoal.NewToken()[:8], ControlDir: control,
		BinDir: filepath.Dir(self), Anyone: true, Grace: -1}
	p, err := program.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close(context.WithoutCancel(ctx))) }()
	return do(p, cfg)
}

// names are those of the checks.
func names() (all []string) {
	for _, c := range providertest.Checks() {
		all = append(all, c.Name)
	}
	return all
}

// machineOf is a machine as the pool in a file has them.
func machineOf(file string) (m provider.MachineSpec, err error) {
	m = provider.MachineSpec{Pool: "check", Resources: shoal.Resources{CPUs: 1000, Memory: 1 << 30}}
	if file == "" {
		return m, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	set, err := spec.Parse(spec.File{Name: file, Data: text})
	if err != nil {
		return m, err
	}
	if len(set.Pools) != 1 {
		return m, shoal.Errorf(shoal.KindInvalid, "%s holds %d pools", file, len(set.Pools)).WithHint("give a file with one")
	}
	p := set.Pools[0]
	m = provider.MachineSpec{Pool: p.Name, Image: p.Image, OS: p.OS, Resources: p.Machine, Config: p.ProviderConfig, Private: !p.Has(shoal.UseInteractive)}
	for _, mount := range p.Mounts {
		for _, s := range set.Shares {
			if s.Name == mount.Share {
				m.Mounts = append(m.Mounts, provider.Mount{Share: s, Path: mount.Path, ReadOnly: mount.ReadOnly})
			}
		}
	}
	return m, nil
}

// describe asks an executable what it can do.
func describe(ctx context.Context, p *program.Provider, cfg program.Config) (wire.Description, error) {
	d, err := p.Describe(ctx)
	if err != nil && ctx.Err() == nil {
		err = shoal.Errorf(shoal.KindInvalid, "%s is no provider: %w", cfg.Path, err)
	}
	return d, err
}

// most is how many different machines the checks ask for.
const most = 16

// checkAll runs the suite and says how each check went.
func (env Env) checkAll(ctx context.Context, p *program.Provider, cfg program.Config, like provider.MachineSpec, patience time.Duration, only []string) error {
	d, err := describe(ctx, p, cfg)
	if err != nil {
		return err
	}
	env.Say("%s: protocol %d, mode %s, mounts by the %s, stop %t", filepath.Base(cfg.Path), d.Protocol, d.Mode, d.Capabilities.Mounts, d.Capabilities.Stop)
	if d.Capabilities.Mounts == provider.MountsByAgent {
		like.Mounts = nil
	}
	if err := lists(ctx, p); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "%s does not list its machines, so nothing else can be tried: %w", cfg.Path, err).
			WithHint(`with none it answers {"complete": true}`)
	}
	s := subject(&p, cfg, like, patience)
	var failed []string
	for _, c := range providertest.Checks() {
		if len(only) > 0 && !slices.Contains(only, c.Name) {
			continue
		}
		if !c.Applies(s) {
			env.Say("-       %-14s can only be tried from within", c.Name)
			continue
		}
		began := time.Now()
		err := c.Run(ctx, s)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			env.Say("ok      %-14s %s", c.Name, time.Since(began).Round(10*time.Millisecond))
			continue
		}
		failed = append(failed, c.Name)
		for line := range strings.Lines(err.Error()) {
			env.Say("FAILED  %-14s %s", c.Name, strings.TrimSpace(line))
		}
	}
	left := sweep(context.WithoutCancel(ctx), p, patience)
	if err := p.Close(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	switch {
	case len(left) > 0:
		return shoal.Errorf(shoal.KindConflict, "%s has left %s: nothing that was tried removes them", cfg.Path, strings.Join(left, ", ")).
			WithHint("its directory was %s", cfg.Dir)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(failed) > 0:
		return shoal.Errorf(shoal.KindInternal, "%s breaks what a provider promises: %s", cfg.Path, strings.Join(failed, ", ")).
			WithHint("docs/reference/provider-protocol.md says what they are")
	}
	return nil
}

// lists sees whether a program lists its machines at all, for which it has a few tries. Without, each check would wait for that in vain.
func lists(ctx context.Context, p *program.Provider) (err error) {
	for try := range 5 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Second):
			}
		}
		o, e := p.Observe(ctx)
		if e == nil && o.Complete {
			return nil
		}
		if err = e; e == nil {
			err = errors.New("its list does not say that it is complete")
		}
	}
	return err
}

// subject is a program as the suite wants it. It may be opened again; p is then the new one.
func subject(p **program.Provider, cfg program.Config, like provider.MachineSpec, patience time.Duration) providertest.Subject {
	var ids []shoal.MachineID
	for range most {
		ids = append(ids, shoal.NewMachineID())
	}
	machine := func(n int) provider.MachineSpec {
		m := like
		m.ID, m.Token = ids[n], string(ids[n])
		m.Join = provider.Join{Machine: m.ID, Pool: m.Pool, Token: "none", Control: "unix:///run/shoal/control/agent.sock", Epoch: 1}
		return m
	}
	setting := machine(0)
	setting.Config = map[string]any{"shoal-knows-no-such-setting": true}
	maps.Copy(setting.Config, like.Config)
	s := providertest.Subject{Provider: *p, Spec: machine, Patience: patience, Poll: 100 * time.Millisecond,
		Invalid: map[string]provider.MachineSpec{"a setting that does not exist": setting}}
	s.Reopen = func() (provider.Provider, error) {
		if err := (*p).Close(context.Background()); err != nil {
			return nil, err
		}
		again, err := program.New(context.Background(), cfg)
		if err == nil {
			*p = again
		}
		return again, err
	}
	return s
}

// sweep deletes what there still is, and returns what stays.
func sweep(ctx context.Context, p provider.Provider, patience time.Duration) (left []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		o, err := p.Observe(ctx)
		left = nil
		for _, m := range o.Machines {
			left = append(left, fmt.Sprintf("machine %s (%s)", m.ID, m.ProviderID))
			if m.Phase != provider.PhaseStopping {
				_ = p.Delete(ctx, m.ID) // the next look tells
			}
		}
		if err == nil && o.Complete && len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}
