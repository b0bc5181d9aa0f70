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

// doApart does a Work in a process of its own.
func doApart(ctx context.Context, w accounts.Work) (accounts.Done, error) {
	var o outcome
	late, err := apart(ctx, exec.CommandContext(ctx, "/proc/self/exe", "files"), w, &o)
	switch {
	case late:
		return accounts.Done{}, shoal.Errorf(shoal.KindUnavailable, "mount %s does not answer", w.Root).WithHint("see whether its file server runs")
	case err != nil:
		return accounts.Done{}, fmt.Errorf("cannot make files on %s: %w", w.Root, err)
	case o.Error != "":
		return o.Done, shoal.Errorf(o.Kind, "%s", o.Error)
	}
	return o.Done, nil
}

// apart runs a command that reads JSON and writes JSON. When ctx, which is the command's, ends before it does, it is late and left
// behind: the kernel may not let it go before a file server answers.
func apart(ctx context.Context, cmd *exec.Cmd, in, out any) (late bool, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return false, err
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &said
	cmd.WaitDelay = time.Second
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return true, nil
	}
	if err == nil {
		err = json.Unmarshal(said.Bytes(), out)
	}
	return false, err
}
