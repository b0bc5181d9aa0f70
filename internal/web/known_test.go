package web_test

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/internal/web"
)

// TestWhoForgets: what is remembered of a cookie ends at once where a change is told, within seconds where it is not, and with
// the cookie's time.
func TestWhoForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		people := local.New(store.Credentials{DB: db})
		storetest.Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().Put(shoal.User{Name: "alice"}); return err })
		w, err := web.New(web.Config{Store: db, People: people})
		if err != nil {
			t.Fatal(err)
		}
		who := func(secret string) string {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Cookie", "__Host-shoal="+secret)
			name, _ := w.Who(r)
			return string(name)
		}
		open := func() string {
			secret, _, err := people.OpenBrowser(t.Context(), "alice", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if who(secret) != "alice" {
				t.Fatal("she is not known")
			}
			return secret
		}
		told, untold, old := open(), open(), open()
		if err := people.CloseBrowser(t.Context(), told); err != nil {
			t.Fatal(err)
		}
		w.Forget("alice")
		if who(told) != "" {
			t.Error("she is still known")
		}
		if who(untold) != "alice" {
			t.Error("her other browser is not known")
		}
		if err := people.CloseBrowser(t.Context(), untold); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if who(untold) != "" {
			t.Error("she is still known after some seconds")
		}
		time.Sleep(time.Hour)
		if who(old) != "" {
			t.Error("she is known beyond the cookie's time")
		}
	})
}

func BenchmarkWho(b *testing.B) {
	db := storetest.Open(b)
	people := local.New(store.Credentials{DB: db})
	storetest.Update(b, db, func(tx *store.Tx) error { _, err := tx.Users().Put(shoal.User{Name: "alice"}); return err })
	w, err := web.New(web.Config{Store: db, People: people})
	if err != nil {
		b.Fatal(err)
	}
	secret, _, err := people.OpenBrowser(b.Context(), "alice", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "__Host-shoal="+secret)
	for b.Loop() {
		if _, err := w.Who(r); err != nil {
			b.Fatal("she is not known")
		}
	}
}
