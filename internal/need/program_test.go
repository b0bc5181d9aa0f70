package need_test

import (
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shoal-pool/shoal/internal/need"
)

// A program that a test writes runs at once, also while others are started beside it.
func TestScript(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	defer others.Wait()
	defer close(done)
	for range 60 {
		path := filepath.Join(t.TempDir(), "program")
		need.Script(t, path, "#!/bin/sh\necho hello\n")
		if out, err := exec.Command(path).Output(); err != nil || string(out) != "hello\n" {
			t.Fatalf("%q, %v", out, err)
		}
	}
}
