package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
)

// databaseRows compare the store in PostgreSQL with the store in a file: jobs that only wait, submitted each in a request of
// its own, eight at a time. Both are on the same disk and reach it at every commit.
func databaseRows(ctx context.Context, b *bench) (err error) {
	if err := os.Chmod(b.dir, 0o755); err != nil { // for PostgreSQL's account
		return err
	}
	pg, err := cluster.NewIn(ctx, b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close()) }()
	address, err := pg.Database(ctx)
	if err != nil {
		return err
	}
	rates := map[string][]float64{}
	worlds := map[string]*world{}
	for name, flags := range map[string][]string{"sqlite": nil, "postgres": {"--database", address}} {
		w, err := rig.New(ctx, b.bin, b.dir+"/"+name, flags...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		if err := w.Apply(ctx, 1, rig.Pool("batch", "batch", "{cpus: 1, memory: 512MiB}", "{min: 0, max: 0}", 1, "")); err != nil {
			return err
		}
		worlds[name] = &world{w}
	}
	for range b.rounds {
		for _, name := range []string{"sqlite", "postgres"} {
			me, err := worlds[name].ClientAs(ctx, "u1")
			if err != nil {
				return err
			}
			start := time.Now()
			err = eight(ctx, singles, func(ctx context.Context) error {
				_, err := me.Submit(ctx, queued("true"), shoal.NewToken())
				return err
			})
			if err != nil {
				return err
			}
			rates[name] = append(rates[name], singles/time.Since(start).Seconds())
		}
	}
	for _, w := range worlds {
		if err := w.cancelAll(ctx); err != nil {
			return err
		}
	}
	if err := takeovers(ctx, b, worlds["postgres"].World); err != nil {
		return err
	}
	b.add(Row{Measure: "2,000 submissions to a store in PostgreSQL, eight at a time", Unit: "jobs/s", Ours: rates["postgres"], Peer: rates["sqlite"],
		PeerIs: "a store in a file"}.judge(atLeast("ratio", 0.5)))
	return nil
}

// takeovers measures from the last moment of a server that leads to the first answer of the one that stood by.
func takeovers(ctx context.Context, b *bench, w *rig.World) error {
	for how, signal := range map[string]syscall.Signal{"is frozen": syscall.SIGSTOP, "is killed": syscall.SIGKILL} {
		var took []float64
		for range b.rounds {
			former := w.Server
			next, err := w.Launch()
			if err != nil {
				return err
			}
			time.Sleep(3 * time.Second) // it stands by
			start := time.Now()
			err = former.Process.Signal(signal)
			w.Server = next
			if err == nil {
				err = rig.Until(ctx, time.Minute, "the other server answers", func() (bool, error) { return answers(ctx, w), nil })
			}
			if err != nil {
				return err
			}
			took = append(took, time.Since(start).Seconds())
			_ = former.Wait() // whoever leads ends one that is frozen
		}
		b.add(Row{Measure: "a server that leads " + how + ": until the one that stands by answers", Unit: "s", Ours: took}.judge(atMost("ours", 10)))
	}
	return nil
}

// answers reports whether a world's server answers, rather than one before.
func answers(ctx context.Context, w *rig.World) bool {
	leader, _ := os.ReadFile(filepath.Join(w.Data, "serve.lock")) // written by who takes over
	if strings.TrimSpace(string(leader)) != strconv.Itoa(w.Server.Process.Pid) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := w.Client.Pools(ctx)
	return err == nil
}
