package gpu

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
)

// Said is what nvidia-smi says of one GPU.
type Said struct {
	Minor     int
	UUID      string
	Name      string
	Memory    shoal.Bytes
	Used      shoal.Bytes
	Busy      int // percent; of late, as the driver counts
	Processes []Process
}

// Process holds memory of a GPU. In a container the driver often names none, or those of other name spaces.
type Process struct {
	PID    int
	Memory shoal.Bytes
}

// Tool is nvidia-smi.
type Tool struct {
	Path string // of the program
	Libs string // where its libraries are, if not where every program's are
	// Patience is how long it may take; zero: 15 s, more than it needs to wake a GPU without its persistence daemon.
	Patience time.Duration
}

// FindTool finds nvidia-smi below root; false: it is not installed.
func FindTool(root string) (Tool, bool) {
	for _, dir := range binDirs() {
		path := filepath.Join(root, dir, "nvidia-smi")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			t := Tool{Path: path}
			if filepath.Clean(root) != "/" {
				var dirs []string
				for _, d := range libDirs() {
					dirs = append(dirs, filepath.Join(root, d))
				}
				t.Libs = strings.Join(dirs, ":")
			}
			return t, true
		}
	}
	return Tool{}, false
}

const (
	answerTime = 15 * time.Second
	maxAnswer  = 2 << 20
)

// ErrSilent says that nvidia-smi did not answer in time.
var ErrSilent = errors.New("nvidia-smi does not answer")

// Ask runs nvidia-smi and returns within a bounded time, whatever becomes of it.
func (t Tool) Ask(ctx context.Context) ([]Said, error) {
	patience := t.Patience
	if patience <= 0 {
		patience = answerTime
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	done := make(chan answer, 1)
	go func() {
		defer cancel()
		c := exec.CommandContext(ctx, t.Path, "-q", "-x")
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
		c.WaitDelay = time.Second
		c.Env = append(os.Environ(), "LC_ALL=C")
		if t.Libs != "" {
			c.Env = append(c.Env, "LD_LIBRARY_PATH="+t.Libs)
		}
		var out limited
		c.Stdout = &out
		err := c.Run()
		done <- answer{out.Bytes(), err}
	}()
	select {
	case a := <-done:
		return a.said(ctx)
	case <-ctx.Done():
	}
	select {
	case a := <-done: // it came with the end of ctx, or is that end
		return a.said(ctx)
	default:
		// One that waits in the kernel cannot be killed; the goroutine waits on for it.
		return nil, ErrSilent
	}
}

type answer struct {
	out []byte
	err error
}

func (a answer) said(ctx context.Context) ([]Said, error) {
	switch {
	case a.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, ErrSilent
	case a.err != nil:
		return nil, fmt.Errorf("nvidia-smi failed: %w: %s", a.err, firstLine(a.out))
	}
	return parse(a.out)
}

// limited keeps the beginning of what is written.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxAnswer - l.Len(); room > 0 {
		_, _ = l.Buffer.Write(p[:min(len(p), room)]) // a buffer takes all
	}
	return len(p), nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.ToValidUTF8(line[:min(len(line), 200)], "?")
}

// document is what `nvidia-smi -q -x` writes, as far as we read it.
type document struct {
	XMLName xml.Name `xml:"nvidia_smi_log"`
	GPUs    []struct {
		Name   string `xml:"product_name"`
		UUID   string `xml:"uuid"`
		Minor  string `xml:"minor_number"`
		Memory struct {
			Total string `xml:"total"`
			Used  string `xml:"used"`
		} `xml:"fb_memory_usage"`
		Utilization struct {
			GPU string `xml:"gpu_util"`
		} `xml:"utilization"`
		Processes []struct {
			PID    string `xml:"pid"`
			Memory string `xml:"used_memory"`
		} `xml:"processes>process_info"`
	} `xml:"gpu"`
}

// parse reads that document. What a GPU does not tell is "N/A" there and zero here.
func parse(b []byte) ([]Said, error) {
	var doc document
	if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("<")) {
		return nil, fmt.Errorf("cannot read what nvidia-smi says: %q", firstLine(b))
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = false // vendors' names
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("cannot read what nvidia-smi says: %w", err)
	}
	var said []Said
	for _, g := range doc.GPUs {
		minor, err := strconv.ParseUint(strings.TrimSpace(g.Minor), 10, 16)
		if err != nil {
			continue // it has no node of its own
		}
		s := Said{Minor: int(minor), UUID: strings.TrimSpace(g.UUID), Name: strings.TrimSpace(g.Name), Memory: mib(g.Memory.Total),
			Used: mib(g.Memory.Used), Busy: min(amount(g.Utilization.GPU, "%"), 100)}
		if !strings.HasPrefix(s.UUID, "GPU-") || strings.ContainsAny(s.UUID, ", \t\n") {
			s.UUID = ""
		}
		for _, p := range g.Processes {
			if pid := amount(p.PID, ""); pid > 0 {
				s.Processes = append(s.Processes, Process{pid, mib(p.Memory)})
			}
		}
		said = append(said, s)
	}
	return said, nil
}

func mib(s string) shoal.Bytes { return shoal.Bytes(amount(s, "MiB")) << 20 }

// amount reads "81559 MiB"; zero if it is something else.
func amount(s, unit string) int {
	n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), unit)), 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}
