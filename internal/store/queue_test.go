package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// What can be read is what would be written, and nothing makes a reader fall.
func FuzzRows(f *testing.F) {
	a := shoal.Attempt{State: shoal.JobSucceeded, Cause: shoal.CauseExit, Machine: "m-1", User: "u", Pool: "p", Placed: time.Unix(1, 0), Started: time.Unix(2, 0), Ended: time.Unix(3, 0)}
	a.Job, a.Index, a.Attempt = "1", 7, 1
	f.Add(store.WritePack([]shoal.Attempt{a}))
	f.Add(store.WriteHot(shoal.Job{ID: "1", State: shoal.JobRunning, Counts: shoal.Counts{Queued: 3}, Next: 9}))
	f.Add([]byte{2, 1, 1, 'a', 'b'})
	f.Fuzz(func(t *testing.T, body []byte) {
		if all, err := store.ReadPack(body); err == nil && len(all) > 0 {
			again, err := store.ReadPack(store.WritePack(all))
			if err != nil || fmt.Sprint(again) != fmt.Sprint(all) {
				t.Errorf("%v, then %v, %v", all, again, err)
			}
		}
		if j, err := store.ReadHot(body); err == nil {
			if again, err := store.ReadHot(store.WriteHot(j)); err != nil || fmt.Sprint(again) != fmt.Sprint(j) {
				t.Errorf("%v, then %v, %v", j, again, err)
			}
		}
		items, err := store.ReadItems(body)
		if err == nil && len(bytes.Join(bytesOf(items), nil)) > len(body) {
			t.Errorf("%d items out of nothing", len(items))
		}
	})
}

func bytesOf(items []shoal.Item) [][]byte {
	all := make([][]byte, len(items))
	for i, item := range items {
		all[i] = item
	}
	return all
}

// A file of the schema before the queue is brought forward: what waits is in the queue, what ended can be
// packed and forgotten.
func TestOldSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	script := "UPDATE counters SET value = 40 WHERE name = 'rev'; UPDATE counters SET value = 3 WHERE name = 'job'"
	for id, state := range map[int]string{1: "succeeded", 2: "queued", 3: "running"} {
		ended := ""
		if state == "succeeded" {
			ended = `,"ended":"2026-01-02T03:04:05.123456789Z"`
		}
		script += fmt.Sprintf(`;INSERT INTO jobs VALUES (%d, %d, %d, '{"id":"%d","user":"alice","spec":{"pool":"lab","name":"n","command":"true","array":"1-20","outputs":{"a":"/x"},"after":["1"]},"state":"%s","since":"2026-01-02T03:04:05Z","counts":{"succeeded":20},"next":20,"submitted":"2026-01-02T03:04:05Z"%s,"rev":%d}', 'lab', 'alice', 'n', '%s')`,
			id, id, id, id, state, ended, id, state)
	}
	for i := 1; i <= 20; i++ {
		script += fmt.Sprintf(`;INSERT INTO attempts VALUES (1, %d, 1, 1, 'm-1', 'alice', 'succeeded', 5, '{"job":"1","index":%d,"attempt":1,"user":"alice","pool":"lab","machine":"m-1","epoch":1,"state":"succeeded","cause":"exit","exitCode":0,"placed":"2026-01-02T03:04:05Z","started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:06Z"}')`, i, i)
	}
	if err := oldFile(path, 3, script); err != nil {
		t.Fatal(err)
	}
	db := storetest.OpenAt(t, path)
	storetest.View(t, db, func(tx *store.Tx) error {
		active, err := tx.ActiveJobs()
		if len(active) != 2 || active[0].ID != "2" || active[0].State != shoal.JobQueued || active[1].State != shoal.JobRunning || active[1].Counts.Succeeded != 20 ||
			active[0].Spec.After[0].Job != "1" || active[0].Spec.Command != "" {
			t.Errorf("%+v", active)
		}
		old, err2 := tx.JobsEndedBefore(time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), 5)
		none, _ := tx.JobsEndedBefore(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 5)
		if len(old) != 1 || old[0].ID != "1" || len(none) != 0 || err2 != nil {
			t.Errorf("ended: %+v, %+v, %v", old, none, err2)
		}
		return err
	})
	if n, err := db.Pack(t.Context()); n != 20 || err != nil {
		t.Errorf("%d packed, %v", n, err)
	}
	storetest.Update(t, db, func(tx *store.Tx) error {
		all, err := tx.Attempts("1", 0, 0)
		if len(all) != 20 || all[19].Index != 20 || !all[19].Ended.Equal(time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)) {
			t.Errorf("%d attempts", len(all))
		}
		if id, err := tx.NextJobID(); id != "4" || err != nil {
			t.Errorf("next job %s, %v", id, err)
		}
		j, err2 := tx.Jobs().Get("3")
		if err2 != nil {
			return err2
		}
		j.State = shoal.JobSucceeded
		_, err2 = tx.Jobs().Put(j)
		if err2 != nil {
			return err2
		}
		active, _ := tx.ActiveJobs()
		if len(active) != 1 {
			t.Errorf("%d active", len(active))
		}
		return err
	})
}

// oldFile makes a file of a schema of the past, and runs a script in it.
func oldFile(path string, version int, script string) error {
	pool, err := sql.Open("sqlite", file.DataSource(path))
	if err != nil {
		return err
	}
	defer pool.Close()
	steps, err := store.Schema().Steps(0)
	if err != nil {
		return err
	}
	for _, s := range steps[:version] {
		if _, err := pool.ExecContext(context.Background(), s.SQL); err != nil {
			return fmt.Errorf("schema %d: %w", s.Version, err)
		}
	}
	_, err = pool.ExecContext(context.Background(), script+fmt.Sprintf(";\nPRAGMA user_version = %d", version))
	return err
}
