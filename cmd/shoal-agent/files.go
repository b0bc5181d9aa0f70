package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/accounts"
)

// filesMain does a Work, which comes on its standard input. What failed it says on standard output.
func filesMain() int {
	var w accounts.Work
	if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
		fmt.Println("cannot read what to do:", err)
		return 2
	}
	if err := w.Do(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// doApart does a Work in a process of its own. When ctx ends before it does, it is left behind: the kernel
// may not let it go before the file server answers.
func doApart(ctx context.Context, w accounts.Work) error {
	in, err := json.Marshal(w)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "files")
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
	cmd.WaitDelay = time.Second
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch {
	case ctx.Err() != nil:
		return shoal.Errorf(shoal.KindUnavailable, "mount %s does not answer", w.Root).WithHint("see whether its file server runs")
	case err == nil:
		return nil
	case out.Len() > 0:
		return errors.New(strings.ToValidUTF8(strings.TrimSpace(out.String()), "?"))
	}
	return fmt.Errorf("cannot make files on %s: %w", w.Root, err)
}
