package secrets_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// Each user gets what she may use under the names that the pool says, is told of the rest, and each value is put on record.
func TestSessions(t *testing.T) {
	db := storetest.Open(t)
	k := keeper(t, db)
	storetest.Update(t, db, func(tx *store.Tx) error {
		if _, err := tx.Pools().Put(shoal.Pool{Name: "plain"}); err != nil {
			return err
		}
		if _, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab"}); err != nil {
			return err
		}
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Secrets: map[string]string{"OWN": "own", "SHARED": "shared", "SITE": "site"}})
		return err
	})
	set(t, k, alice, "own", "of alice")
	set(t, k, alice, "shared", "of research", "research")
	set(t, k, bob, "own", "of bob")
	set(t, k, carol, "own", "of carol")
	set(t, k, host, "site", "of the site") // for shares alone

	for _, c := range []struct {
		user shoal.UserName
		want map[string]string
		lack []string
	}{
		{"alice", map[string]string{"OWN": "of alice", "SHARED": "of research"}, []string{"SITE"}},
		{"bob", map[string]string{"OWN": "of bob", "SHARED": "of research"}, []string{"SITE"}},
		{"carol", map[string]string{"OWN": "of carol"}, []string{"SHARED", "SITE"}},
	} {
		for name, ask := range map[string]func() (api.SessionSecrets, error){
			"the login of " + string(c.user) + " to pool lab gets": func() (api.SessionSecrets, error) { return k.ForLogin(t.Context(), "lab", c.user) },
			string(c.user) + " on machine m-1 gets":                func() (api.SessionSecrets, error) { return k.OnMachine(t.Context(), "m-1", c.user) },
		} {
			before := db.Rev()
			got, err := ask()
			if err != nil {
				t.Fatal(err)
			}
			for variable, value := range c.want {
				if string(got.Values[variable]) != value {
					t.Errorf("%s %s as %q", name, variable, got.Values[variable])
				}
			}
			if len(got.Values) != len(c.want) || len(got.Missing) != len(c.lack) {
				t.Errorf("%s %d values, and lacks %q", name, len(got.Values), got.Missing)
			}
			for i, variable := range c.lack {
				if !strings.HasPrefix(got.Missing[i], "pool lab gives you "+variable+", but there is no secret ") || !strings.Contains(got.Missing[i], "`shoal secret set ") {
					t.Errorf("she is told %q", got.Missing[i])
				}
			}
			if n := records(t, db, before, name); n != len(c.want) {
				t.Errorf("%d times it is on record that %s a secret", n, name)
			}
		}
	}
	before := db.Rev()
	if all, err := k.Missing(t.Context(), "lab", "bob"); err != nil || len(all) != 1 || !strings.HasPrefix(all[0], "pool lab gives you SITE, but ") || db.Rev() != before {
		t.Errorf("bob lacks %q, %v", all, err)
	}
	if got, err := k.ForLogin(t.Context(), "plain", "alice"); err != nil || len(got.Values)+len(got.Missing) > 0 || db.Rev() != before {
		t.Errorf("a pool without secrets gives %v, %v", got, err)
	}
	if _, err := k.ForLogin(t.Context(), "lab", "nobody"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Errorf("nobody gets %v", err)
	}
}

// records counts the events since a revision whose sentences begin like this.
func records(t *testing.T, db *store.DB, since shoal.Rev, sentence string) (n int) {
	t.Helper()
	storetest.View(t, db, func(tx *store.Tx) error {
		all, err := tx.Events(since, 100)
		n = len(slices.DeleteFunc(all, func(e shoal.Event) bool { return !strings.HasPrefix(e.Sentence, sentence) }))
		return err
	})
	return n
}
