package secrets_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/secrets"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

var (
	alice = access.Subject{User: "alice", Role: shoal.RoleMember, Groups: []shoal.GroupName{"research"}}
	bob   = access.Subject{User: "bob", Role: shoal.RoleMember, Groups: []shoal.GroupName{"research"}}
	carol = access.Subject{User: "carol", Role: shoal.RoleAdmin}
	host  = access.Subject{Host: true}
)

// keeper makes one on a store with a group of alice and bob.
func keeper(t *testing.T, db *store.DB) *secrets.Keeper {
	t.Helper()
	storetest.Update(t, db, func(tx *store.Tx) error {
		for i, name := range []shoal.UserName{"alice", "bob", "carol"} {
			if _, err := tx.Users().Put(shoal.User{Name: name, UID: 20001 + i}); err != nil {
				return err
			}
		}
		_, err := tx.Groups().Put(shoal.Group{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "bob"}})
		return err
	})
	return again(t, db, key(t))
}

func key(t *testing.T) string {
	t.Helper()
	k, err := secrets.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func again(t *testing.T, db *store.DB, key string) *secrets.Keeper {
	t.Helper()
	k, err := secrets.New(db, key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func set(t *testing.T, k *secrets.Keeper, by access.Subject, name shoal.SecretName, value string, groups ...shoal.GroupName) {
	t.Helper()
	if _, err := k.Set(t.Context(), by, name, api.SetSecret{Value: []byte(value), Groups: groups}); err != nil {
		t.Fatal(err)
	}
}

// value is what somebody gets, or the kind of the error.
func value(t *testing.T, k *secrets.Keeper, by access.Subject, name shoal.SecretName) string {
	t.Helper()
	v, err := k.Value(t.Context(), by, name)
	if err != nil {
		return string(shoal.KindOf(err))
	}
	return string(v)
}

func TestWhoMayUseWhat(t *testing.T) {
	k := keeper(t, storetest.Open(t))
	set(t, k, alice, "own", "one")
	set(t, k, alice, "shared", "two", "research")
	set(t, k, bob, "shared", "three")
	set(t, k, host, "site", "four")
	browser := alice
	browser.Browser = true
	for _, c := range []struct {
		by   access.Subject
		name shoal.SecretName
		want string
	}{
		{alice, "own", "one"}, {alice, "shared", "two"}, {bob, "own", "notFound"}, {bob, "shared", "three"}, {bob, "site", "notFound"},
		{carol, "own", "notFound"}, {carol, "shared", "notFound"}, {browser, "own", "denied"}, {alice, "absent", "notFound"}, {host, "own", "notFound"},
	} {
		if got := value(t, k, c.by, c.name); got != c.want {
			t.Errorf("%s gets %q of %s, want %q", c.by, got, c.name, c.want)
		}
	}
	if err := k.Remove(t.Context(), bob, "shared"); err != nil {
		t.Error(err)
	}
	if got := value(t, k, bob, "shared"); got != "two" {
		t.Errorf("bob gets %q, want what alice shares", got)
	}
	if err := k.Remove(t.Context(), bob, "shared"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Errorf("bob removes what is alice's: %v", err)
	}
	all, err := k.List(t.Context(), bob)
	if err != nil || len(all) != 1 || all[0].Owner != "alice" || all[0].Size != 3 {
		t.Errorf("bob sees %+v, %v", all, err)
	}
	if all, err = k.List(t.Context(), carol); err != nil || len(all) != 3 {
		t.Errorf("an administrator sees %+v, %v", all, err)
	}
}

func TestWrongSecrets(t *testing.T) {
	k := keeper(t, storetest.Open(t))
	for name, c := range map[string]struct {
		by   access.Subject
		name shoal.SecretName
		req  api.SetSecret
		want shoal.Kind
	}{
		"no value":      {alice, "a", api.SetSecret{}, shoal.KindInvalid},
		"a wrong name":  {alice, "A b", api.SetSecret{Value: []byte("x")}, shoal.KindInvalid},
		"too long":      {alice, "a", api.SetSecret{Value: make([]byte, secrets.MaxSize+1)}, shoal.KindInvalid},
		"another group": {carol, "a", api.SetSecret{Value: []byte("x"), Groups: []shoal.GroupName{"research"}}, shoal.KindDenied},
		"no such group": {alice, "a", api.SetSecret{Value: []byte("x"), Groups: []shoal.GroupName{"nobodys"}}, shoal.KindNotFound},
		"nobody":        {access.Subject{}, "a", api.SetSecret{Value: []byte("x")}, shoal.KindNotFound},
	} {
		if _, err := k.Set(t.Context(), c.by, c.name, c.req); shoal.KindOf(err) != c.want {
			t.Errorf("%s: %v, want kind %s", name, err, c.want)
		}
	}
	if _, err := secrets.New(nil, "no key"); err == nil {
		t.Error("a key is taken that is none")
	}
}

// TestAtRest looks for the value in all that is on disk, and in what is on record of it.
func TestAtRest(t *testing.T) {
	dir := t.TempDir()
	db := storetest.OpenAt(t, filepath.Join(dir, "shoal.db"))
	k := keeper(t, db)
	const text = "correct horse battery staple"
	set(t, k, alice, "password", text)
	job := shoal.Job{ID: "7", User: "alice", Spec: shoal.JobSpec{Secrets: map[string]string{"PW": "password"}}}
	storetest.Update(t, db, func(tx *store.Tx) error {
		values, why, err := k.ForTask(tx, job)
		if err != nil || why != "" || values["PW"] != text {
			t.Errorf("a task gets %v, %q, %v", values, why, err)
		}
		return k.Given(tx, job, shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "7"}, Attempt: 1})
	})
	if value(t, k, alice, "password") != text {
		t.Error("the value is another")
	}
	said := map[string]int{}
	storetest.View(t, db, func(tx *store.Tx) error {
		events, err := tx.Events(0, 0)
		for _, e := range events {
			said[e.Code]++
			if strings.Contains(e.Sentence, text) {
				t.Errorf("event %q says the value", e.Sentence)
			}
		}
		return err
	})
	if said["secretSet"] != 1 || said["secretRead"] != 2 {
		t.Errorf("on record are %v", said)
	}
	// With another key nothing can be read, and the task is told why.
	other := again(t, db, key(t))
	if got := value(t, other, alice, "password"); got != "invalid" {
		t.Errorf("another key reads %q", got)
	}
	storetest.View(t, db, func(tx *store.Tx) error {
		if values, why, err := other.ForTask(tx, job); err != nil || values != nil || !strings.Contains(why, "cannot read secret") {
			t.Errorf("with another key a task gets %v, %q, %v", values, why, err)
		}
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(text)) || bytes.Contains(raw, []byte("correct horse")) {
			t.Errorf("%s holds the value", f)
		}
	}
}

func TestJobs(t *testing.T) {
	db := storetest.Open(t)
	k := keeper(t, db)
	set(t, k, alice, "shared", "two", "research")
	set(t, k, bob, "twice", "x", "research")
	set(t, k, alice, "mine", "y")
	check := func(user shoal.UserName, name string) (err error) {
		storetest.View(t, db, func(tx *store.Tx) error {
			err = k.Known(tx, shoal.User{Name: user}, shoal.JobSpec{Secrets: map[string]string{"X": name}})
			return nil
		})
		return err
	}
	if err := check("bob", "shared"); err != nil {
		t.Error(err)
	}
	if err := check("bob", "mine"); shoal.KindOf(err) != shoal.KindNotFound || strings.Contains(err.Error(), "alice") {
		t.Errorf("bob may not know of it: %v", err)
	}
	if err := check("carol", "shared"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Error(err)
	}
	storetest.View(t, db, func(tx *store.Tx) error {
		job := shoal.Job{User: "bob", Spec: shoal.JobSpec{Secrets: map[string]string{"X": "gone"}}}
		if values, why, err := k.ForTask(tx, job); values != nil || err != nil || !strings.Contains(why, `no secret "gone"`) {
			t.Errorf("%v %q %v", values, why, err)
		}
		return nil
	})
}
