package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "run the suites whose name matches this `PATTERN`")
	list := flag.Bool("list", false, "list the suites and how far they are")
	scale := flag.Float64("scale", 1, "multiply the rounds of every suite")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, *list, *scale); err != nil {
		fmt.Fprintln(os.Stderr, "prove:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, list bool, scale float64) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	commit, err := commitOf(".")
	if err != nil {
		return err
	}
	plan, err := findSuites(".")
	if err != nil {
		return err
	}
	book, err := open("prove.json", commit)
	if err != nil {
		return err
	}
	failed := 0
	for _, s := range plan {
		if !pattern.MatchString(s.Name) {
			continue
		}
		s.Goal = max(1, int(float64(s.Goal)*scale))
		record := book.suite(s)
		if list {
			fmt.Printf("%-60s %4d of %d rounds, %d failures\n", s.Name, record.Rounds, s.Goal, len(record.Failures))
			continue
		}
		for record.Rounds < s.Goal && ctx.Err() == nil {
			if err := book.round(ctx, s, record); err != nil {
				return err
			}
		}
		failed += len(record.Failures)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; it goes on here at the next start")
	}
	if failed > 0 {
		return fmt.Errorf("%d failures, see prove.json", failed)
	}
	return nil
}

// round runs a suite once more and writes down what came out.
func (b *book) round(ctx context.Context, s suite, r *record) error {
	seed := r.Rounds + 1
	fmt.Printf("%s  %s, round %d of %d\n", time.Now().Format("15:04:05"), s.Name, seed, s.Goal)
	started := time.Now()
	out, err := s.command(ctx, seed)
	if ctx.Err() != nil {
		return nil // a round that was not finished is none
	}
	r.Rounds = seed
	r.Seeds = [2]int{1, seed}
	r.Count += s.Each
	for what, n := range counts(string(out)) {
		if r.Counted == nil {
			r.Counted = map[string]int{}
		}
		r.Counted[what] += n
	}
	r.Seconds += int(time.Since(started).Seconds())
	if err != nil {
		text := string(out)
		fmt.Printf("FAILED: %v\n%s\n", err, tail(text, 40))
		r.Failures = append(r.Failures, failure{Seed: seed, Time: time.Now().UTC().Truncate(time.Second), Output: tail(text, 200)})
	}
	return b.write()
}

// line is what tests say of how much they have done; see tally in package internal/e2e.
var line = regexp.MustCompile(`(?m)^ +[a-z_]+_test\.go:[0-9]+: counted ([0-9]{1,9}) (.+)$`)

// counts adds up what a round says that it has done.
func counts(out string) map[string]int {
	sum := map[string]int{}
	for _, m := range line.FindAllStringSubmatch(out, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil {
			sum[m[2]] += n
		}
	}
	return sum
}

func tail(text string, lines int) string {
	list := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(list[max(0, len(list)-lines):], "\n")
}

// commitOf is the commit of a tree, marked where files differ from it.
func commitOf(dir string) (string, error) {
	head, err := exec.Command("git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("cannot tell the commit: %w", err)
	}
	changes, err := exec.Command("git", "-C", dir, "status", "--porcelain").Output()
	if err != nil {
		return "", fmt.Errorf("cannot tell what has changed: %w", err)
	}
	commit := strings.TrimSpace(string(head))
	if len(changes) > 0 {
		commit += "+changes"
	}
	return commit, nil
}
