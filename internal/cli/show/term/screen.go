package term

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// What a terminal is told: the other screen and back, the cursor, and what to wipe.
const (
	openScreen  = "\x1b[?1049h\x1b[?25l"
	closeScreen = "\x1b[?25h\x1b[?1049l"
	topLeft     = "\x1b[H"
	wipeLine    = "\x1b[K"
	wipeBelow   = "\x1b[J"
)

// Screen is the whole of a terminal, on which each text replaces the one before. What was there comes back with Close.
type Screen struct {
	in, out *os.File
	before  *term.State
	// Keys are those that are pressed. It is closed when there will be no more.
	Keys <-chan byte
}

// OpenScreen takes a terminal, whose keys are not shown until Close and send no signals.
func OpenScreen(in, out *os.File) (*Screen, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("cannot use the terminal: %w", err)
	}
	keys := make(chan byte, 16)
	go func() {
		defer close(keys)
		var b [1]byte
		for {
			if n, err := in.Read(b[:]); n != 1 || err != nil {
				return
			}
			select {
			case keys <- b[0]:
			default: // nobody looks
			}
		}
	}()
	_, err = out.WriteString(openScreen)
	return &Screen{in: in, out: out, before: before, Keys: keys}, err
}

// Size is how many columns and lines there are now.
func (s *Screen) Size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

// Show writes as much of the lines as there is room for.
func (s *Screen) Show(lines []string) error {
	width, height := s.Size()
	var b strings.Builder
	b.WriteString(topLeft)
	for i, l := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(Short(Clean(l), width) + wipeLine)
	}
	b.WriteString(wipeBelow)
	_, err := s.out.WriteString(b.String())
	return err
}

// Close gives the terminal back as it was.
func (s *Screen) Close() error {
	_, err := s.out.WriteString(closeScreen)
	if again := term.Restore(int(s.in.Fd()), s.before); err == nil {
		err = again
	}
	return err
}
