package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// TestOutputBeats: a followed output on which nothing happens says every 15 s that it is there, tells
// what comes with its offset, and says its true end.
func TestOutputBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.job("", false)
		ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: id}, Attempt: 1}
		path := "/api/v1/jobs/" + string(id) + "/tasks/-1/output?frames=true"
		r, torn := open(t, w.api.Control(), path+"&follow=true&offset=7", bearer(w.tokens["alice"]))
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got, want := r.String(), "data 7 7\nOUTPUT\nbeat\nbeat\nbeat\nbeat\n"; got != want || r.header.Get("Content-Type") != api.OutputMedia {
			t.Errorf("%q, want %q, as %s", got, want, r.header.Get("Content-Type"))
		}
		w.end(ref, 14)
		if <-torn || !strings.HasSuffix(r.String(), "beat\nend 14\n") {
			t.Errorf("it ended with %q", r.String())
		}
		r, torn = open(t, w.api.Control(), path, bearer(w.tokens["alice"]))
		if <-torn || r.String() != "data 0 14\nSECRET-OUTPUT\nend 14\n" {
			t.Errorf("what there is: %q", r.String())
		}
		r, torn = open(t, w.api.Control(), path+"&node=1", bearer(w.tokens["alice"]))
		if <-torn || !strings.Contains(r.String(), "has no node 1") {
			t.Errorf("a node that is not: %q", r.String())
		}
	})
}

// TestFiles: outputs are listed and read with the rights of whoever asks, from the share's directory.
func TestFiles(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can read as others")
	}
	w := newWorld(t)
	ctx := t.Context()
	share := t.TempDir()
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		s, err := tx.Shares().Get("team")
		s.Source = share
		return errors.Join(err, put(tx.Shares().Put, s))
	})
	uid := map[shoal.UserName]int{}
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		users, err := tx.Users().List()
		for _, u := range users {
			uid[u.Name] = u.UID
		}
		return err
	})
	alice := access.Subject{User: "alice", Role: shoal.RoleMember}
	submit := func(out map[string]shoal.OutputDir) shoal.JobID {
		j, err := w.batch.Submit(ctx, alice, shoal.JobSpec{Pool: "lab", Command: "true", Outputs: out, Share: "group", Resources: shoal.Resources{CPUs: 100, Memory: 1 << 20}}, "")
		mustf(t, err, "submit")
		return j.ID
	}
	id := submit(map[string]shoal.OutputDir{"model": {Path: "/shared/out"}, "scratch": {Path: "/tmp/out"}})
	home := submit(map[string]shoal.OutputDir{"theirs": {Path: "/shared/home/bob", Reuse: true}})
	lost := submit(map[string]shoal.OutputDir{"scratch": {Path: "/tmp/out"}})
	none := submit(nil)
	dir := filepath.Join(share, "out", string(id))
	mustf(t, errors.Join(os.MkdirAll(filepath.Join(dir, "a b"), 0o755), os.WriteFile(filepath.Join(dir, "a b", "w?#%.pt"), []byte("weights"), 0o600),
		os.Chown(filepath.Join(dir, "a b", "w?#%.pt"), uid["alice"], uid["alice"]), os.MkdirAll(filepath.Join(share, "home/bob"), 0o755),
		os.WriteFile(filepath.Join(share, "home/bob/key"), []byte("SECRET"), 0o600), os.Chown(filepath.Join(share, "home/bob/key"), uid["bob"], uid["bob"])), "write")
	c := w.client(w.tokens["alice"])
	all, err := c.Files(ctx, id, "")
	mustf(t, err, "files")
	if len(all) != 2 || !all[0].Dir || all[1].Path != "a b/w?#%.pt" || all[1].Size != 7 || all[1].Output != "model" || all[1].Modified.IsZero() {
		t.Errorf("%+v", all)
	}
	f, err := c.File(ctx, id, "model/a b/w?#%.pt")
	mustf(t, err, "file")
	if b, err := io.ReadAll(f); err != nil || string(b) != "weights" || f.Size != 7 {
		t.Errorf("%q, %v", b, err)
	}
	_, err = c.File(ctx, home, "theirs/key")
	wantKind(t, err, shoal.KindDenied)
	_, err = c.File(ctx, id, "model/a b")
	wantKind(t, err, shoal.KindInvalid)
	_, err = c.File(ctx, id, "model/none")
	wantKind(t, err, shoal.KindNotFound)
	_, err = c.File(ctx, none, "model/none")
	wantKind(t, err, shoal.KindNotFound)
	_, err = c.Files(ctx, lost, "")
	if wantKind(t, err, shoal.KindInvalid); !strings.Contains(shoal.HintOf(err), "pool lab mounts team at /shared") {
		t.Errorf("%v: %s", err, shoal.HintOf(err))
	}
	if all, err := c.Files(ctx, none, ""); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for name, token := range w.tokens {
		if name == "alice" {
			continue
		}
		f, err := w.client(token).File(ctx, id, "model/a b/w?#%.pt")
		if err == nil {
			b, _ := io.ReadAll(f)
			t.Errorf("%s reads %q", name, b)
		}
	}
	r, err := http.NewRequestWithContext(ctx, "GET", "/api/v1/jobs/"+string(id)+"/files/model/a%20b/w%3F%23%25.pt", nil)
	mustf(t, err, "request")
	r.Header.Set("Authorization", "Bearer "+w.tokens["alice"])
	r.Header.Set("Range", "bytes=2-4")
	resp := httptest.NewRecorder()
	w.api.Control().ServeHTTP(resp, r)
	if resp.Body.String() != "igh" || resp.Code != 206 || resp.Header().Get("X-Content-Type-Options") != "nosniff" || resp.Header().Get("Content-Disposition") != "attachment" {
		t.Errorf("%q, %d, %v", resp.Body, resp.Code, resp.Header())
	}
}
