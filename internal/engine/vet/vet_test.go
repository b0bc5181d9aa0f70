package vet_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/vet"
	"github.com/shoal-pool/shoal/internal/providers/fake"
)

func TestCheckPool(t *testing.T) {
	all := vet.Providers{"fake": fake.New(fake.Config{})}
	check := func(change func(*shoal.Pool)) error {
		p := shoal.Pool{Name: "lab", Provider: "fake"}
		change(&p)
		return all.CheckPool(t.Context(), p, nil)
	}
	if err := check(func(*shoal.Pool) {}); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*shoal.Pool){
		`this server has no provider "azure"`: func(p *shoal.Pool) { p.Provider = "azure" },
		`there is no share "team"`:            func(p *shoal.Pool) { p.Mounts = []shoal.Mount{{Share: "team", Path: "/shared"}} },
		"of provider fake run Linux only":     func(p *shoal.Pool) { p.OS = shoal.Windows },
	} {
		if err := check(change); shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := all.CheckUser(t.Context(), shoal.User{Name: "alice"}); err != nil {
		t.Error(err)
	}
}
