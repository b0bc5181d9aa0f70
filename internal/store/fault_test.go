package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func putUser(db *store.DB, name string, size int) error {
	return db.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Users().Put(shoal.User{Name: shoal.UserName(name), Keys: []string{strings.Repeat("x", size)}})
		return err
	})
}

func names(t testing.TB, db *store.DB) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	storetest.View(t, db, func(tx *store.Tx) error {
		users, err := tx.Users().List()
		for _, u := range users {
			all[string(u.Name)] = true
		}
		return err
	})
	return all
}

// When the disk is full an update says so and how to go on, reading goes on, nothing that was
// acknowledged is lost, and the store works again by itself once there is space.
func TestFullDisk(t *testing.T) {
	dir := need.Disk(t, "2m")
	db := storetest.OpenAt(t, filepath.Join(dir, "store.db"))
	if err := putUser(db, "first", 10); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	acknowledged := []string{"first"}
	var mu sync.Mutex
	var full error
	var wg sync.WaitGroup
	for w := range 4 { // together, so that groups fail too
		wg.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("u%d-%d", w, i)
				err := putUser(db, name, 10_000)
				mu.Lock()
				if err == nil {
					acknowledged = append(acknowledged, name)
				} else {
					full = err
				}
				stop := full != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if shoal.KindOf(full) != shoal.KindUnavailable || shoal.HintOf(full) == "" {
		t.Fatalf("on a full disk: %v (hint %q)", full, shoal.HintOf(full))
	}
	check := func() {
		t.Helper()
		have := names(t, db)
		for _, name := range acknowledged {
			if !have[name] {
				t.Errorf("%s was acknowledged and is not there", name)
			}
		}
		if len(have) != len(acknowledged) {
			t.Errorf("%d users, %d were acknowledged", len(have), len(acknowledged))
		}
	}
	check()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := putUser(db, "after", 10_000); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	acknowledged = append(acknowledged, "after")
	check()
}

// One update that does not fit on the disk does not fail the small ones of its group.
func TestFullDiskSparesTheSmall(t *testing.T) {
	dir := need.Disk(t, "2m")
	db := storetest.OpenAt(t, filepath.Join(dir, "store.db"))
	var wg sync.WaitGroup
	busy, release := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		_ = db.Update(context.Background(), func(*store.Tx) error { close(busy); <-release; return nil })
	})
	<-busy // the next ones gather behind it
	for i := range 9 {
		wg.Go(func() {
			size := 100
			if i == 4 {
				size = 8 << 20
			}
			err := putUser(db, fmt.Sprint("u", i), size)
			if i == 4 && shoal.KindOf(err) != shoal.KindUnavailable || i != 4 && err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	for start := time.Now(); db.Waiting() < 9 && time.Since(start) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if n := len(names(t, db)); n != 8 {
		t.Errorf("%d users", n)
	}
}

// An acknowledged update is on disk: every connection syncs at each commit.
func TestSettings(t *testing.T) {
	db := storetest.Open(t)
	check := func(tx *store.Tx) error {
		for name, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "trusted_schema": "0"} {
			if got, err := tx.Pragma(name); got != want || err != nil {
				t.Errorf("%s is %q, want %q, %v", name, got, want, err)
			}
		}
		return nil
	}
	storetest.Update(t, db, check)
	storetest.View(t, db, check)
}

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_TEST_WRITER"); path != "" {
		write(path)
	}
	os.Exit(m.Run())
}

// write puts users as fast as it can and says each name once it is stored.
func write(path string) {
	db, err := file.Open(context.Background(), path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if err := putUser(db, name, 100); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(name)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// Whatever was acknowledged before a kill -9 is there afterwards, and the store opens at once.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	acknowledged := map[string]bool{}
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Fatal(lines.Text())
			}
			if strings.Count(lines.Text(), "-") == 2 {
				acknowledged[lines.Text()] = true
			}
			if n == 50*(round+1) {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		db, err := file.Open(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		have := names(t, db)
		for name := range acknowledged {
			if !have[name] {
				t.Errorf("round %d: %s was acknowledged and is lost", round, name)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 500 {
		t.Errorf("only %d updates", len(acknowledged))
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	db := storetest.OpenAt(t, path)
	if err := putUser(db, "alice", 1); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a dir?#%", "store.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	db := storetest.OpenAt(t, path)
	if _, err := file.Open(context.Background(), path); shoal.KindOf(err) != shoal.KindConflict || shoal.HintOf(err) == "" {
		t.Errorf("a second process: %v", err)
	}
	if err := putUser(db, "alice", 1); err != nil {
		t.Fatal(err)
	}
	rev := db.Rev()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := storetest.OpenAt(t, path)
	if again.Rev() != rev || !names(t, again)["alice"] {
		t.Errorf("opened again at revision %d, it was %d", again.Rev(), rev)
	}
	if _, err := file.Open(context.Background(), filepath.Join(t.TempDir(), "none", "store.db")); shoal.KindOf(err) != shoal.KindUnavailable {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Open(context.Background(), text); err == nil {
		t.Error("a text file was opened as a store")
	}
}

func TestClosed(t *testing.T) {
	db := storetest.Open(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for k := range 20 {
				if err := putUser(db, fmt.Sprintf("u%d-%d", i, k), 1); err != nil && shoal.KindOf(err) != shoal.KindUnavailable {
					t.Errorf("%v", err)
				}
			}
		})
		wg.Go(func() {
			for e, err := range db.Watch(context.Background(), 0) {
				if err != nil && shoal.KindOf(err) != shoal.KindUnavailable {
					t.Errorf("%v %v", e, err)
				}
			}
		})
	}
	time.Sleep(time.Millisecond)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := db.View(context.Background(), func(*store.Tx) error { return nil }); shoal.KindOf(err) != shoal.KindUnavailable {
		t.Errorf("a view after the end: %v", err)
	}
	if err := putUser(db, "late", 1); shoal.KindOf(err) != shoal.KindUnavailable {
		t.Errorf("an update after the end: %v", err)
	}
}

// In a bubble, time passes while everybody waits, and stands while the store works.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		start := time.Now()
		seen := make(chan string)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for e := range db.Watch(ctx, 0) {
				seen <- e.Name
			}
			close(seen)
		}()
		go func() {
			for i := range 48 {
				time.Sleep(time.Hour)
				storetest.Update(t, db, func(tx *store.Tx) error {
					tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: fmt.Sprint(i)})
					return nil
				})
			}
		}()
		for i := range 48 {
			if got := <-seen; got != fmt.Sprint(i) {
				t.Fatalf("event %s, want %d", got, i)
			}
		}
		if d := time.Since(start); d != 48*time.Hour {
			t.Errorf("%v passed", d)
		}
		cancel()
		<-seen
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			db := storetest.Open(b)
			b.SetParallelism(max(clients/2, 1))
			var n int64
			var mu sync.Mutex
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					mu.Lock()
					n++
					i := int(n)
					mu.Unlock()
					err := db.Update(context.Background(), func(tx *store.Tx) error {
						a := shoal.Attempt{User: "alice", Pool: "lab", Machine: "m-1", State: shoal.JobRunning}
						a.Job, a.Index, a.Attempt = "1", i, 1
						return tx.PutAttempt(a)
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
