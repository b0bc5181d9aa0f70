package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// measure makes the rows of one rig.
type measure struct {
	name string
	run  func(context.Context, *bench) error
}

func measures() []measure {
	return []measure{
		{"wake", wake}, {"crowd", crowd}, {"gateway", gatewayRows}, {"idle-sessions", idleSessions},
		{"batch", batchRows}, {"pass", passRows}, {"logs", logRows}, {"queue", queueRows}, {"database", databaseRows}, {"density", density},
		{"web", webRows}, {"websockets", crowdRows}, {"hub", hubRows}, {"scaling", scalingRows}, {"reach", reachRows}, {"kubernetes", kubernetesRows},
	}
}

// bench is a run in progress.
type bench struct {
	bin    string // where shoal and shoal-agent lie
	dir    string // scratch, on the disk that machines stand on
	rounds int
	rows   []Row
}

func (b *bench) add(r Row) {
	b.rows = append(b.rows, r)
	verdict := "ok"
	if !r.OK {
		verdict = "missed"
	}
	b.say("%s: %s %s, peer %s, ratio %s, goal %s: %s", r.Measure, number(median(r.Ours)), r.Unit, number(median(r.Peer)), number(r.Ratio), r.Goal, verdict)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	bin := flag.String("bin", "bin", "directory of shoal and shoal-agent")
	out := flag.String("o", "bench.json", "file for the rows")
	only := flag.String("run", "", "regular expression: which rigs ("+names()+")")
	rounds := flag.Int("rounds", 5, "alternating rounds of each measure")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("machines need root: run make bench as root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{bin: *bin, dir: dir, rounds: *rounds}
	var failed []error
	for _, m := range measures() {
		if !wanted.MatchString(m.name) || ctx.Err() != nil {
			continue
		}
		b.say("%s …", m.name)
		if err := m.run(ctx, b); err != nil {
			b.say("%s failed: %v", m.name, err)
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		if err := save(*out, b.rows); err != nil {
			return err
		}
	}
	return errors.Join(append(failed, table(os.Stdout, b.rows), ctx.Err())...)
}

func names() string {
	var all []string
	for _, m := range measures() {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// world is a server of the bench's own.
type world struct{ *rig.World }

// world starts a server on a fresh directory.
func (b *bench) world(ctx context.Context, name string) (*world, error) {
	w, err := rig.New(ctx, b.bin, filepath.Join(b.dir, name))
	return &world{w}, err
}
