package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/postgres"
)

func putUser(db *store.DB, name string) error {
	return db.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Users().Insert(shoal.User{Name: shoal.UserName(name)})
		return err
	})
}

func users(t testing.TB, db *store.DB) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	if err := db.View(context.Background(), func(tx *store.Tx) error {
		list, err := tx.Users().List()
		for _, u := range list {
			all[string(u.Name)] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// until waits for something that must come about, however slow the machine is.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for begun := time.Now(); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 2*time.Minute {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// write is the process that is frozen: it puts users as fast as it can, says each that is stored, and goes on after errors.
func write(address string) {
	db, err := postgres.Open(context.Background(), address, postgres.Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("old-%d", i)
		if err := putUser(db, name); err != nil {
			fmt.Println("refused", err)
			select {
			case <-db.Lost():
				fmt.Println("lost", db.Leads())
				os.Exit(0)
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		fmt.Println("stored", name)
	}
}

// A leader that is frozen makes room, and after it goes on it stores nothing and knows that it is lost. What it
// was told is stored is there.
func TestFrozen(t *testing.T) {
	a := address(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+a)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	var count atomic.Int64
	last := make(chan string, 1)
	go func() {
		line := ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line = lines.Text()
			if name, ok := strings.CutPrefix(line, "stored "); ok {
				stored[name] = true
				count.Add(1)
			}
		}
		last <- line
	}()
	until(t, "the leader stores", func() bool { return count.Load() > 100 })
	if _, err := postgres.Open(context.Background(), a, postgres.Options{}); shoal.KindOf(err) != shoal.KindConflict || shoal.HintOf(err) == "" {
		t.Errorf("a second server that does not wait: %v", err)
	}
	standby := false
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	db, err := postgres.Open(context.Background(), a, postgres.Options{Standby: func() { standby = true }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	t.Logf("taken over after %v", time.Since(begun))
	if !standby {
		t.Error("nobody was told that another leads")
	}
	if err := putUser(db, "new"); err != nil {
		t.Fatal(err)
	}
	before := users(t, db)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if line := <-last; !strings.HasPrefix(line, "lost ") || strings.HasSuffix(line, "<nil>") {
		t.Errorf("the former leader says %q", line)
	}
	_ = cmd.Wait()
	if err := db.Leads(); err != nil {
		t.Errorf("the leader is told: %v", err)
	}
	after := users(t, db)
	if len(after) != len(before) {
		t.Errorf("%d users, there were %d when the former leader went on", len(after), len(before))
	}
	for name := range stored {
		if !after[name] {
			t.Errorf("%s was stored and is not there", name)
		}
	}
}

// While the database is away, changes are refused with what to do, but for those that may be stored, which wait; once it is back
// everything goes on under the same leader, nothing that was stored is lost, and nothing is stored twice.
func TestDatabaseGoesAndComes(t *testing.T) {
	own, err := cluster.New(t.Context(), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	a, err := own.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := openAt(t, a)
	epoch := db.Epoch()
	stop := make(chan struct{})
	done := make(chan map[string]bool)
	go func() {
		stored := map[string]bool{}
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- stored
				return
			default:
			}
			name := fmt.Sprintf("u%d", i)
			switch err := putUser(db, name); {
			case err == nil:
				stored[name] = true
			case shoal.KindOf(err) != shoal.KindUnavailable || shoal.HintOf(err) == "":
				t.Errorf("%s: %v", shoal.KindOf(err), err)
				<-stop
			}
		}
	}()
	for i, end := range []func() error{own.Stop, own.Kill} {
		seen := db.Rev()
		until(t, "something is stored", func() bool { return db.Rev() > seen+20 })
		if err := end(); err != nil {
			t.Fatal(err)
		}
		asked, refused := 0, atomic.Bool{}
		until(t, "it is told", func() bool {
			asked++
			name := fmt.Sprintf("asked-%d-%d", i, asked)
			go func() { // one that may be stored waits
				if shoal.KindOf(putUser(db, name)) == shoal.KindUnavailable {
					refused.Store(true)
				}
			}()
			return refused.Load()
		})
		if err := db.View(t.Context(), func(tx *store.Tx) error { _, err := tx.Users().List(); return err }); shoal.KindOf(err) != shoal.KindUnavailable {
			t.Errorf("a view without a database: %v", err)
		}
		if i == 0 {
			until(t, "it does not lead for certain", func() bool { return db.Leads() != nil })
		}
		if err := own.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, "it leads again", func() bool { return db.Leads() == nil })
	}
	seen := db.Rev()
	until(t, "something is stored again", func() bool { return db.Rev() > seen+20 })
	close(stop)
	stored := <-done
	there := users(t, db)
	for name := range stored {
		if !there[name] {
			t.Errorf("%s was stored and is not there", name)
		}
	}
	if db.Epoch() != epoch {
		t.Errorf("epoch %d, it was %d", db.Epoch(), epoch)
	}
}

func TestAddresses(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("*:*:*:*:geheim"), 0o644); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret") // as a pod has it: root's, for the group of who serves
	if err := os.WriteFile(secret, []byte("*:*:*:*:geheim"), 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(t.Context(), "postgres://shoal@127.0.0.1:1/shoal?connect_timeout=1&passfile="+secret, postgres.Options{}); os.Getuid() == 0 && shoal.KindOf(err) != shoal.KindUnavailable {
		t.Errorf("a password that is root's, for a group: %v", err)
	}
	if _, err := postgres.Peek(t.Context(), address(t)); shoal.KindOf(err) != shoal.KindNotFound || shoal.HintOf(err) == "" {
		t.Errorf("a database that no server has used: %v", err)
	}
	for address, kind := range map[string]shoal.Kind{
		"postgres://shoal:geheim@localhost/shoal":              shoal.KindInvalid,
		"postgres://localhost/shoal?password=geheim":           shoal.KindInvalid,
		"postgres://shoal@localhost":                           shoal.KindInvalid,
		"mysql://localhost/shoal":                              shoal.KindInvalid,
		"host=localhost password=geheim":                       shoal.KindInvalid,
		"postgres://localhost/shoal?passfile=" + open:          shoal.KindInvalid,
		"postgres://localhost/shoal?passfile=/nothing/there":   shoal.KindNotFound,
		"postgres://shoal@localhost/x?sslmode=geheim":          shoal.KindInvalid,
		"postgres://shoal@127.0.0.1:1/shoal?connect_timeout=1": shoal.KindUnavailable,
		strings.Replace(address(t), "@/shoal", "@/nothing", 1): shoal.KindNotFound,
	} {
		_, err := postgres.Open(t.Context(), address, postgres.Options{})
		if shoal.KindOf(err) != kind || shoal.HintOf(err) == "" && !strings.Contains(address, "sslmode") || strings.Contains(err.Error(), "geheim") && !strings.Contains(address, "sslmode") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %s, %v (%s)", address, shoal.KindOf(err), err, shoal.HintOf(err))
		}
	}
}
