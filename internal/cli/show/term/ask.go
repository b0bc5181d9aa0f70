package term

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Ask reads a secret from a terminal without showing it. A signal on stop ends the wait, and the
// terminal shows again what is typed.
func Ask(in any, out io.Writer, prompt string, stop <-chan os.Signal) (string, error) {
	f, ok := in.(interface{ Fd() uintptr })
	if !ok {
		return "", errors.New("there is no terminal")
	}
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	// Before the prompt: who answers it at once is not shown either.
	if err := hide(fd); err != nil {
		return "", err
	}
	io.WriteString(out, prompt)
	defer fmt.Fprintln(out)
	type answer struct {
		secret []byte
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		secret, err := term.ReadPassword(fd)
		got <- answer{secret, err}
	}()
	select {
	case a := <-got:
		return string(a.secret), errors.Join(a.err, term.Restore(fd, state))
	case s := <-stop:
		return "", errors.Join(fmt.Errorf("interrupted by %s", s), term.Restore(fd, state))
	}
}

// hide keeps a terminal from showing what is typed.
func hide(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
