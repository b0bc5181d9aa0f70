package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// Progress is a line that says how far something has come. On a terminal it is rewritten in place;
// elsewhere only Note writes, so that logs hold what happened and not how it looked on the way.
// Its methods may be called concurrently.
type Progress struct {
	w     io.Writer
	live  bool
	width int

	mu    sync.Mutex
	shown string
	noted string
}

// NewProgress makes a Progress on w. With quiet nothing is ever written.
func NewProgress(w io.Writer, quiet bool) *Progress {
	if quiet {
		return &Progress{w: io.Discard}
	}
	p := &Progress{w: w, live: Is(w), width: 80}
	if f, ok := w.(*os.File); ok && p.live {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 10 {
			p.width = n
		}
	}
	return p
}

// Live reports whether Show shows anything.
func (p *Progress) Live() bool { return p.live }

// Show replaces the line.
func (p *Progress) Show(format string, args ...any) {
	if !p.live {
		return
	}
	line := Short(Clean(fmt.Sprintf(format, args...)), p.width-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if line == p.shown {
		return
	}
	p.erase()
	io.WriteString(p.w, line)
	p.shown = line
}

// Note writes a line that stays, unless the last note said the same.
func (p *Progress) Note(format string, args ...any) {
	line := Clean(fmt.Sprintf(format, args...))
	p.mu.Lock()
	defer p.mu.Unlock()
	if line == p.noted {
		return
	}
	p.erase()
	p.noted, p.shown = line, ""
	io.WriteString(p.w, line+"\n")
}

// Clear takes the line away.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.shown = ""
}

func (p *Progress) erase() {
	if p.shown != "" {
		io.WriteString(p.w, "\r"+strings.Repeat(" ", len([]rune(p.shown)))+"\r")
	}
}
