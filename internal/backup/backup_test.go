package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/backup"
	"github.com/shoal-pool/shoal/internal/rig/cluster"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/postgres"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// server makes a data directory as a server has it, with users u1 to un in the store.
func server(t *testing.T, db *store.DB, data string, n int) {
	t.Helper()
	for name, text := range map[string]string{"keys/user_ca": "a key", "tls/ca.key": "another", "admin.token": "token", "hub/token": "hub's",
		"output/1/0.out": "what a task wrote", "local/machines/m-1/config": "the provider's", "hub/state.sqlite": "the hub's own"} {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	storetest.Update(t, db, func(tx *store.Tx) error {
		for i := range n {
			if _, err := tx.Users().Insert(shoal.User{Name: shoal.UserName(fmt.Sprint("u", i))}); err != nil {
				return err
			}
		}
		return nil
	})
}

func count(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	storetest.View(t, db, func(tx *store.Tx) error {
		all, err := tx.Users().List()
		n = len(all)
		return err
	})
	return n
}

// What is saved from a server that runs, on either database, is there after it was restored, on either database.
func TestSaveAndRestore(t *testing.T) {
	pg, err := cluster.New(t.Context(), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	database := func() string {
		t.Helper()
		a, err := pg.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	open := func(p backup.Place) *store.DB {
		t.Helper()
		var db *store.DB
		if p.Database == "" {
			db, err = file.Open(context.Background(), filepath.Join(p.Data, "shoal.db"))
		} else {
			db, err = postgres.Open(context.Background(), p.Database, postgres.Options{})
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	dir := t.TempDir()
	for i, address := range []string{"", database()} {
		from := backup.Place{Data: filepath.Join(dir, fmt.Sprint("from", i)), Database: address}
		if err := os.Mkdir(from.Data, 0o700); err != nil {
			t.Fatal(err)
		}
		db := open(from)
		server(t, db, from.Data, 10+i)
		saved := filepath.Join(dir, fmt.Sprint("saved", i))
		if err := backup.Save(t.Context(), from, saved); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the backup is %v, %v", info, err)
		}
		if err := backup.Save(t.Context(), from, saved); shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("over another backup: %v", err)
		}
		for k, address := range []string{"", database()} {
			to := backup.Place{Data: filepath.Join(dir, fmt.Sprint("to", i, k), "data"), Database: address}
			if err := backup.Restore(t.Context(), to, saved); err != nil {
				t.Fatal(err)
			}
			if err := backup.Restore(t.Context(), to, saved); shoal.KindOf(err) != shoal.KindConflict {
				t.Errorf("over a data directory: %v", err)
			}
			again := open(to)
			if n := count(t, again); n != 10+i {
				t.Errorf("%d users, want %d", n, 10+i)
			}
			if again.Rev() <= db.Rev() {
				t.Errorf("revision %d, it was %d", again.Rev(), db.Rev())
			}
			for name, there := range map[string]bool{"keys/user_ca": true, "tls/ca.key": true, "admin.token": true, "hub/token": true, "output": false, "local": false, "hub/state.sqlite": false} {
				info, err := os.Stat(filepath.Join(to.Data, name))
				if (err == nil) != there || err == nil && info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info, err)
				}
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A backup that was cut off anywhere is refused, and nothing is left of it.
func TestCutBackups(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	db := storetest.OpenAt(t, filepath.Join(dir, "data", "shoal.db"))
	server(t, db, filepath.Join(dir, "data"), 3)
	path := filepath.Join(dir, "backup")
	if err := backup.Save(t.Context(), backup.Place{Data: filepath.Join(dir, "data")}, path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndex(whole, []byte("whole"))
	for at := 512; at < len(whole); at += 512 * (1 + at%13*7) {
		if err := os.WriteFile(path, whole[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "in", "data")
		err := backup.Restore(t.Context(), backup.Place{Data: to}, path)
		if err != nil && (shoal.KindOf(err) != shoal.KindInvalid || !empty(t, filepath.Dir(to))) {
			t.Errorf("cut at %d: %v", at, err)
		}
		if err == nil && at < last {
			t.Errorf("cut at %d of %d it was restored", at, len(whole))
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
}

// empty reports whether a directory is there, and has nothing in it.
func empty(t *testing.T, dir string) bool {
	t.Helper()
	left, err := os.ReadDir(dir)
	return err == nil && len(left) == 0
}

// What is no backup, or wants to be written elsewhere, is refused, and nothing is left of it.
func TestForeignBackups(t *testing.T) {
	archive := func(h tar.Header, text string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "text": []byte("this is no archive"), "empty": make([]byte, 1024),
		"elsewhere":   archive(tar.Header{Name: "../evil", Mode: 0o600, Typeflag: tar.TypeReg}, "x"),
		"hidden":      archive(tar.Header{Name: "keys/../../evil", Mode: 0o600, Typeflag: tar.TypeReg}, "x"),
		"absolute":    archive(tar.Header{Name: "/keys/evil", Mode: 0o600, Typeflag: tar.TypeReg}, "x"),
		"link":        archive(tar.Header{Name: "keys/evil", Linkname: "/etc/passwd", Mode: 0o777, Typeflag: tar.TypeSymlink}, ""),
		"other":       archive(tar.Header{Name: "serve", Mode: 0o755, Typeflag: tar.TypeReg}, "x"),
		"no store":    archive(tar.Header{Name: "keys/a", Mode: 0o600, Typeflag: tar.TypeReg}, "x"),
		"no database": archive(tar.Header{Name: "shoal.db", Mode: 0o600, Typeflag: tar.TypeReg}, "this is no database, and long enough to be looked at as one, or so one would think of it"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "backup")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := backup.Restore(t.Context(), backup.Place{Data: filepath.Join(dir, "in", "data")}, path); err == nil {
				t.Error("it was restored")
			}
			if left, err := os.ReadDir(filepath.Join(dir, "in")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// A store that a newer version of shoal has used, or a backup of one, is refused by all commands, and nothing is changed or left.
func TestNewerVersions(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "shoal.db")
	db, err := file.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server(t, db, data, 3)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "backup")
	if err := backup.Save(t.Context(), backup.Place{Data: data}, saved); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.db")
	if db, err = file.Open(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{path: newer(t, path), saved: newer(t, saved)}
	for what, err := range map[string]error{
		"backup":       backup.Save(t.Context(), backup.Place{Data: data}, saved+"2"),
		"restore":      backup.Restore(t.Context(), backup.Place{Data: filepath.Join(dir, "in", "data")}, saved),
		"migrate":      backup.Migrate(t.Context(), "sqlite:"+path, "sqlite:"+path+"2"),
		"migrate into": backup.Migrate(t.Context(), "sqlite:"+other, "sqlite:"+path),
	} {
		if shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(fmt.Sprint(err), "newer version") || shoal.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q)", what, err, shoal.HintOf(err))
		}
	}
	for path, text := range before {
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%s has changed, %v", path, err)
		}
	}
	if _, err := os.Stat(saved + "2"); err == nil {
		t.Error("there is half a backup")
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("there is half a store")
	}
	if !empty(t, filepath.Join(dir, "in")) {
		t.Error("there is half a data directory")
	}
}

// newer has the SQLite file that is in a file say that it is of a version to come. What is in the file then comes back.
func newer(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(text, []byte("SQLite format 3\x00"))
	if begin < 0 {
		t.Fatalf("%s holds no store", path)
	}
	text[begin+62] = 0x7f // its user_version is at 60, with the highest byte first
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMigrate(t *testing.T) {
	pg, err := cluster.New(t.Context(), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	to, err := pg.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "shoal.db")
	db, err := file.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server(t, db, dir, 7)
	if err := backup.Migrate(t.Context(), "sqlite:"+path, to); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("while a server uses it: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for from, kind := range map[string]shoal.Kind{"sqlite:" + path + "x": shoal.KindNotFound, path: shoal.KindInvalid, "": shoal.KindInvalid} {
		if err := backup.Migrate(t.Context(), from, to); shoal.KindOf(err) != kind {
			t.Errorf("from %q: %v", from, err)
		}
	}
	if err := backup.Migrate(t.Context(), "sqlite:"+path, to); err != nil {
		t.Fatal(err)
	}
	if err := backup.Migrate(t.Context(), "sqlite:"+path, to); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("a second time: %v", err)
	}
	if err := backup.Migrate(t.Context(), to, "sqlite:"+path+".back"); err != nil {
		t.Fatal(err)
	}
	back, err := file.Open(t.Context(), path+".back")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if n := count(t, back); n != 7 {
		t.Errorf("%d users came back", n)
	}
	interrupted, stop := context.WithCancel(t.Context())
	stop()
	if err := backup.Migrate(interrupted, to, "sqlite:"+path+".half"); err == nil {
		t.Error("it went on though it was interrupted")
	}
	if left, err := filepath.Glob(path + ".half*"); err != nil || len(left) > 0 {
		t.Errorf("what was interrupted has left %v, %v", left, err)
	}
}

// What is no store is not taken for one, not even for one with nothing in it, and is left as it is; what others have beside a store in a database is
// no part of it.
func TestMigrateWhatIsNone(t *testing.T) {
	pg, err := cluster.New(t.Context(), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	database := func(more ...string) string {
		t.Helper()
		a, err := pg.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		db, err := pgx.Connect(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close(t.Context())
		for _, text := range more {
			if _, err := db.Exec(t.Context(), text); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	dir := t.TempDir()
	text, nothing, path := filepath.Join(dir, "text"), filepath.Join(dir, "nothing"), filepath.Join(dir, "shoal.db")
	if err := errors.Join(os.WriteFile(text, []byte("root:x:0:0\n"), 0o644), os.WriteFile(nothing, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for from, kind := range map[string]shoal.Kind{"sqlite:" + text: shoal.KindNotFound, "sqlite:" + nothing: shoal.KindNotFound, "sqlite:" + dir: shoal.KindInvalid,
		"sqlite:": shoal.KindInvalid, database(): shoal.KindNotFound} {
		err := backup.Migrate(t.Context(), from, "sqlite:"+path)
		if shoal.KindOf(err) != kind || !strings.Contains(fmt.Sprint(err), "--from") {
			t.Errorf("from %s: %v", from, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("it has left %v, %v", left, err)
	}
	for _, name := range []string{text, nothing} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 || info.Size() > 0 != (name == text) {
			t.Errorf("%s has changed: %v, %v", name, info, err)
		}
	}
	db, err := file.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server(t, db, dir, 3)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const beside = `CREATE TABLE "the others'" (x int); CREATE VIEW looks AS SELECT * FROM "the others'"`
	to := database(beside)
	for what, c := range map[string]struct{ to, says, hint string }{
		"a table of theirs":     {database(beside, `INSERT INTO "the others'" VALUES (1)`), "the others'", "is empty"},
		"one that we need":      {database("CREATE TABLE users (x int)"), `"users" already exists`, "a database of its own"},
		"a directory not there": {"sqlite:" + filepath.Join(dir, "absent", "shoal.db"), "absent", "mkdir"},
		"itself":                {"sqlite:" + path, "has been used", "is empty"},
	} {
		err := backup.Migrate(t.Context(), "sqlite:"+path, c.to)
		if !strings.Contains(fmt.Sprint(err), "cannot use --to: ") || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(shoal.HintOf(err), c.hint) {
			t.Errorf("%s: %v (hint %q)", what, err, shoal.HintOf(err))
		}
	}
	if err := backup.Migrate(t.Context(), "sqlite:"+path, to); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "saved")
	if err := errors.Join(backup.Migrate(t.Context(), to, "sqlite:"+path+".back"), backup.Save(t.Context(), backup.Place{Data: dir, Database: to}, saved)); err != nil {
		t.Error(err)
	}
}

// firstWrite calls a function once, before the first byte is written.
type firstWrite struct {
	once sync.Once
	do   func()
}

func (w *firstWrite) Write(data []byte) (int, error) {
	w.once.Do(w.do)
	return len(data), nil
}

// Whoever reads a backup may go away, which kills a program that writes to its standard output: no copy of the store is left then.
func TestNothingIsLeftOfABackupCutShort(t *testing.T) {
	data := t.TempDir()
	db, err := file.Open(t.Context(), filepath.Join(data, "shoal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	server(t, db, data, 3)
	var left []string
	if err := backup.SaveTo(t.Context(), backup.Place{Data: data}, &firstWrite{do: func() {
		left, err = filepath.Glob(filepath.Join(data, ".shoal-backup-*"))
	}}); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(left) > 0 {
		t.Errorf("while the backup is written there is %q, %v", left, err)
	}
}

// A place that cannot be replaced is refused before anything is copied, and one that a link leads to stays where it is.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	saved, from := filepath.Join(dir, "saved"), backup.Place{Data: filepath.Join(dir, "from")}
	if err := os.Mkdir(from.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := file.Open(t.Context(), filepath.Join(from.Data, "shoal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	server(t, db, from.Data, 1)
	if err := backup.Save(t.Context(), from, saved); err != nil {
		t.Fatal(err)
	}
	disk, link := filepath.Join(dir, "disk"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(disk, 0o755), unix.Mount("tmpfs", disk, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	err = backup.Restore(t.Context(), backup.Place{Data: disk, Database: "postgres://nobody@127.0.0.1:1/none"}, saved)
	if shoal.KindOf(err) != shoal.KindConflict || !strings.Contains(shoal.HintOf(err), "a directory on it") || !empty(t, disk) {
		t.Errorf("onto a disk: %v", err)
	}
	there := filepath.Join(disk, "data")
	if err := errors.Join(os.Mkdir(there, 0o755), os.Symlink(there, link)); err != nil {
		t.Fatal(err)
	}
	if err := backup.Restore(t.Context(), backup.Place{Data: link}, saved); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(there, "shoal.db")); err != nil {
		t.Errorf("by a link: %v", err)
	}
}

// atName does something when the name of a file is written.
type atName struct {
	bytes.Buffer
	name string
	do   func()
}

func (w *atName) Write(data []byte) (int, error) {
	if w.do != nil && bytes.Contains(data, []byte(w.name)) {
		w.do()
		w.do = nil
	}
	return w.Buffer.Write(data)
}

// A file that goes, grows or shrinks while a backup is made of a server at work, as certificates are renewed for instance, is in it as it
// was or is not, and the backup is good.
func TestFilesChangeMeanwhile(t *testing.T) {
	db := storetest.OpenAt(t, filepath.Join(t.TempDir(), "other.db"))
	for what, change := range map[string]func(path string) error{
		"gone":   func(path string) error { return errors.Join(os.Remove(path), os.Remove(path+".lock")) },
		"grown":  func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("more"), 1000), 0o600) },
		"shrunk": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			data := filepath.Join(dir, "data")
			server(t, db, data, 0)
			own, err := file.Open(t.Context(), filepath.Join(data, "shoal.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			path := filepath.Join(data, "keys", "user_ca")
			if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			out := &atName{name: "keys/user_ca", do: func() {
				if err := change(path); err != nil {
					t.Error(err)
				}
			}}
			if err := backup.SaveTo(t.Context(), backup.Place{Data: data}, out); err != nil {
				t.Fatal(err)
			}
			saved, to := filepath.Join(dir, "saved"), filepath.Join(dir, "to")
			if err := os.WriteFile(saved, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := backup.Restore(t.Context(), backup.Place{Data: to}, saved); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(filepath.Join(to, "keys", "user_ca")); err != nil || string(text) != "a key" {
				t.Errorf("restored is %q, %v", text, err)
			}
		})
	}
}
