package need

import (
	"os"
	"syscall"
	"testing"
)

// Script writes a program that can be run at once. Whatever is started meanwhile has open what is open here, until it is another
// program, and the kernel runs nothing that somebody may write ("text file busy"): so nothing is started meanwhile.
func Script(t testing.TB, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Error(err)
	}
}
