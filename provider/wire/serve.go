package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/shoal-pool/shoal/provider"
)

// Program is a provider that is a program.
type Program struct {
	Provider provider.Provider
	Mode     Mode
	// Settings is the JSON Schema of a pool's providerConfig; empty: there are no settings.
	Settings json.RawMessage
	// Check says whether a machine as a pool would have it can be made; nil: only Create tells.
	Check func(ctx context.Context, s provider.MachineSpec) error
}

// Main does what the program's arguments and standard input ask for, and returns its exit status.
func Main(ctx context.Context, p Program) int {
	if len(os.Args) == 2 && Mode(os.Args[1]) == Session {
		if err := p.Serve(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	var r Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintln(os.Stderr, "this is a provider of machines for `shoal serve --provider`; it reads a request as JSON:", err)
		return 1
	}
	a := p.Answer(ctx, r)
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return 1
	}
	if a.Error != nil {
		return Exit(a.Error.Code)
	}
	return 0
}

// Serve answers requests line by line, many at a time, until there are no more or ctx ends.
func (p Program) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var calls, notes sync.WaitGroup
	defer notes.Wait()
	defer cancel()
	defer calls.Wait() // what was asked for is done
	var mu sync.Mutex  // of out
	enc := json.NewEncoder(out)
	say := func(a Answer) {
		mu.Lock()
		defer mu.Unlock()
		if enc.Encode(a) != nil {
			cancel() // nobody listens any more
		}
	}
	if n, ok := p.Provider.(provider.Notifier); ok {
		notes.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-n.Changed():
					say(Answer{Changed: true})
				}
			}
		})
	}
	dec := json.NewDecoder(bufio.NewReader(in))
	for ctx.Err() == nil {
		var r Request
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cannot read a request: %w", err)
		}
		calls.Go(func() {
			a := p.Answer(ctx, r)
			a.ID = r.ID
			say(a)
		})
	}
	return nil
}

// Answer does one request.
func (p Program) Answer(ctx context.Context, r Request) Answer {
	a, err := p.answer(ctx, r)
	if err == nil {
		return a
	}
	e := &Error{Code: provider.Transient, Message: err.Error()}
	if typed, ok := errors.AsType[*provider.Error](err); ok {
		e.Code, e.Until = typed.Code, typed.Until
	}
	return Answer{Error: e}
}

func (p Program) answer(ctx context.Context, r Request) (a Answer, err error) {
	var spec provider.MachineSpec
	if r.Machine != nil {
		spec = r.Machine.Spec()
	}
	switch r.Op {
	case OpDescribe:
		a.Description = p.description()
	case OpObserve:
		return p.observe(ctx)
	case OpCreate:
		err = p.Provider.Create(ctx, spec)
	case OpStart:
		err = p.Provider.Start(ctx, spec)
	case OpStop:
		err = p.Provider.Stop(ctx, spec.ID)
	case OpDelete:
		err = p.Provider.Delete(ctx, spec.ID)
	case OpCheck:
		if p.Check != nil {
			err = p.Check(ctx, spec)
		}
	default:
		err = provider.Errorf(provider.Invalid, "there is no operation %q", r.Op)
	}
	return a, err
}

func (p Program) description() *Description {
	c := p.Provider.Capabilities()
	return &Description{Protocol: Protocol, Mode: p.Mode, Settings: p.Settings, Capabilities: Capabilities{
		Mounts: c.Mounts, UserSlices: c.UserSlices, Stop: c.Stop, Windows: c.Windows, Check: p.Check != nil, Parallel: c.Parallel,
		CPUs: float64(c.Machine.CPUs) / 1000, MemoryBytes: int64(c.Machine.Memory), GPUs: c.Machine.GPUs}}
}

// observe tells all that the provider sees: it lists what carries the installation's tag, and nothing else.
func (p Program) observe(ctx context.Context) (Answer, error) {
	o, err := p.Provider.Observe(ctx)
	if err != nil {
		return Answer{}, err
	}
	tag := os.Getenv(EnvInstallation)
	a := Answer{Complete: o.Complete, Machines: []Observed{}}
	for _, m := range o.Machines {
		a.Machines = append(a.Machines, Observed{ID: m.ID, Installation: tag, Pool: m.Pool, ProviderID: m.ProviderID, Phase: m.Phase,
			Reason: m.Reason, Address: m.Address, Outdated: m.Outdated, Trouble: m.Trouble})
	}
	return a, nil
}
