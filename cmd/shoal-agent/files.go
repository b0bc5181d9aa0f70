package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/accounts"
)

// outcome is what the child says on standard output.
type outcome struct {
	accounts.Done
	Error string     `json:"error,omitempty"`
	Kind  shoal.Kind `json:"kind,omitempty"`
}

// filesMain does a Work, which comes on its standard input.
func filesMain() int {
	var w accounts.Work
	if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
		fmt.Fprintln(os.Stderr, "cannot read what to do:", err)
		return 2
	}
	var o outcome
	var err error
	if o.Done, err = w.Do(); err != nil {
		o.Error, o.Kind = err.Error(), shoal.KindOf(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return 1
	}
	return 0
}

// doApart does a Work in a process of its own. When ctx ends before it does, it is left behind: the kernel
// may not let it go before the file server answers.
func doApart(ctx context.Context, w accounts.Work) (accounts.Done, error) {
	in, err := json.Marshal(w)
	if err != nil {
		return accounts.Done{}, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "files")
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
	cmd.WaitDelay = time.Second
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return accounts.Done{}, shoal.Errorf(shoal.KindUnavailable, "mount %s does not answer", w.Root).WithHint("see whether its file server runs")
	}
	var o outcome
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &o)
	}
	if err != nil {
		return accounts.Done{}, fmt.Errorf("cannot make files on %s: %w", w.Root, err)
	}
	if o.Error != "" {
		return o.Done, shoal.Errorf(o.Kind, "%s", o.Error)
	}
	return o.Done, nil
}
