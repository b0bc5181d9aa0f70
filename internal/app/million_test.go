package app_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/app"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// TestMain lets the test binary be the server whose memory is measured.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SHOAL_MILLION_SERVER"); dir != "" {
		if err := serveMillion(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// What waits in the full measure, and what has ended; SHOAL_MILLION and SHOAL_MILLION_ENDED are the parts of
// it that are done.
const (
	millionUsers    = 50
	millionJobs     = 200_000
	millionArrays   = 800 // of 1000 tasks
	millionFinished = 10_000_000
	defaultScale    = 0.02
)

// BenchmarkMillion fills a store with a million tasks that wait and ten million that have ended, and starts
// a server on it: how long until the first of those that wait is placed, and how much memory it takes.
func BenchmarkMillion(b *testing.B) {
	scale, ended := defaultScale, defaultScale
	if f, err := strconv.ParseFloat(os.Getenv("SHOAL_MILLION"), 64); err == nil {
		scale, ended = f, f
	}
	if f, err := strconv.ParseFloat(os.Getenv("SHOAL_MILLION_ENDED"), 64); err == nil {
		ended = f
	}
	dir := b.TempDir()
	began := time.Now()
	finish(b, dir, int(millionFinished*ended))
	b.Logf("%d ended in %v", int(millionFinished*ended), time.Since(began).Round(time.Second))
	began = time.Now()
	wait(b, dir, int(millionJobs*scale), int(millionArrays*scale))
	b.Logf("%d jobs and %d arrays wait after %v", int(millionJobs*scale), int(millionArrays*scale), time.Since(began).Round(time.Second))
	if info, err := os.Stat(filepath.Join(dir, "shoal.db")); err == nil {
		b.ReportMetric(float64(info.Size()>>20), "MB-file")
	}
	// Once: at the next start something would run already.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHOAL_MILLION_SERVER="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var name string
		var value float64
		if n, _ := fmt.Sscan(line, &name, &value); n == 2 {
			b.ReportMetric(value, name)
		}
	}
}

// finish makes tasks that have ended, by the store alone: no server could run them all here.
func finish(b *testing.B, dir string, tasks int) {
	db := storetest.OpenAt(b, filepath.Join(dir, "shoal.db"))
	defer db.Close()
	storetest.Update(b, db, func(tx *store.Tx) error {
		for i := range millionUsers {
			if _, err := tx.Users().Put(shoal.User{Name: user(i), UID: 20001 + i}); err != nil {
				return err
			}
		}
		size := shoal.Resources{CPUs: 16_000, Memory: 64 << 30}
		if _, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Wanted: shoal.WantRun, Health: shoal.HealthUp, Epoch: 1, Resources: size}); err != nil {
			return err
		}
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Provider: "fake", Uses: []shoal.Use{shoal.UseBatch}, Machine: size, Size: shoal.Size{Min: 1, Max: 1}})
		return err
	})
	if err := rig.Fill(context.Background(), db, "lab", tasks, user); err != nil {
		b.Fatal(err)
	}
}

func user(i int) shoal.UserName { return shoal.UserName(fmt.Sprintf("user%02d", i%millionUsers)) }

// wait submits jobs that wait.
func wait(b *testing.B, dir string, jobs, arrays int) {
	db := storetest.OpenAt(b, filepath.Join(dir, "shoal.db"))
	defer db.Close()
	storetest.Update(b, db, func(tx *store.Tx) error { // nothing is to start yet
		m, err := tx.Machines().Get("m-1")
		if err != nil {
			return err
		}
		m.Wanted = shoal.WantStop
		_, err = tx.Machines().Put(m)
		return err
	})
	queue, err := batch.New(batch.Config{Store: db, Dir: filepath.Join(dir, "output")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = queue.Run(ctx) })
	defer running.Wait()
	defer cancel()
	submit := func(by int, specs []shoal.JobSpec) {
		if r, err := queue.SubmitBatch(ctx, access.Subject{User: user(by), Role: shoal.RoleMember}, api.BatchRequest{Jobs: specs}, ""); err != nil || r.Items[0].Problem != nil {
			b.Fatal(r, err)
		}
	}
	for u := range millionUsers {
		var specs []shoal.JobSpec
		for i := range max(jobs/millionUsers, 1) {
			specs = append(specs, shoal.JobSpec{Pool: "lab", Name: "job", Command: "python3 step.py --part " + strconv.Itoa(i), Env: map[string]string{"A": "some value"},
				Resources: shoal.Resources{CPUs: 1000, Memory: shoal.Bytes(1+i%5) << 30}, TimeLimit: shoal.Duration(time.Hour)})
		}
		for i := range arrays/millionUsers + 1 {
			specs = append(specs, shoal.JobSpec{Pool: "lab", Command: "true", Array: "1-1000", Resources: shoal.Resources{CPUs: shoal.MilliCPU(1000 * (1 + i%2)), Memory: 1 << 30}})
		}
		submit(u, specs)
	}
	storetest.Update(b, db, func(tx *store.Tx) error {
		m, err := tx.Machines().Get("m-1")
		if err != nil {
			return err
		}
		m.Wanted = shoal.WantRun
		_, err = tx.Machines().Put(m)
		return err
	})
}

// serveMillion serves until it has placed something and then had a while for everything else.
func serveMillion(dir string) error {
	machines := fake.New(fake.Config{})
	defer machines.Close()
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, err := app.New(ctx, app.Options{Data: dir, Listen: "127.0.0.1:0", SSHListen: "127.0.0.1:0", Web: app.Web{HTTPSListen: "off"}, Providers: map[string]provider.Provider{"fake": machines}})
	if err != nil {
		return err
	}
	defer a.Close(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	for placed := false; !placed; {
		changed := a.Store().Changed()
		err := a.Store().View(ctx, func(tx *store.Tx) error {
			live, err := tx.LiveAttempts()
			placed = len(live) > 0
			return err
		})
		if err != nil {
			return err
		}
		if placed {
			break
		}
		select {
		case <-changed:
		case err := <-ended:
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(time.Minute):
			return fmt.Errorf("nothing is placed")
		}
	}
	fmt.Println("s-to-placement", time.Since(began).Seconds())
	fmt.Println("cpu-s-to-placement", spent())
	fmt.Println("MB-then", memory("VmRSS"))
	time.Sleep(10 * time.Second)
	fmt.Println("MB-later", memory("VmRSS"))
	fmt.Println("MB-peak", memory("VmHWM"))
	cancel()
	<-ended
	return nil
}

// spent is the processor time of this process, in seconds: where others use the machine, too, it tells more than
// a clock.
func spent() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// memory is one of the sizes that Linux tells of this process, in MB.
func memory(name string) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kb / 1024
		}
	}
	return 0
}
