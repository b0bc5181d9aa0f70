package activity

import (
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// maxTell bounds a message, in bytes.
const maxTell = 4096

// Tell writes to the terminals of a user, or of all users if user is empty. A terminal that takes nothing,
// because somebody has stopped it, is left out rather than waited for. It is an error if a terminal is there
// and none took the message.
func (w *Watcher) Tell(user shoal.UserName, text string) error {
	message := []byte("\r\n" + clean(text) + "\r\n")
	took := 0
	var failed error
	for _, t := range w.terminals() {
		if name, _ := w.cfg.Name(int(t.st.Uid)); user != "" && name != user {
			continue
		}
		if err := write(t.path, message); err != nil {
			failed = err
		} else {
			took++
		}
	}
	if took == 0 && failed != nil {
		return shoal.Errorf(shoal.KindUnavailable, "cannot write to a terminal: %w", failed)
	}
	return nil
}

func write(path string, b []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, b) // what does not fit is left out
	return err
}

// clean keeps what can do nothing to a terminal: no escapes, nothing that turns the direction of writing.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "")
	if len(s) > maxTell {
		s = strings.ToValidUTF8(s[:maxTell], "")
	}
	s = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)) {
			return -1
		}
		return r
	}, s)
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\r\n")
}
