package httpapi_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/usage"
)

// standings are the same for ever.
type standings []usage.Standing

func (s standings) Standings(context.Context) ([]usage.Standing, error) { return s, nil }

// TestBudgetsAreOnesOwn: a member sees her budget and those of her groups, and nobody else's.
func TestBudgetsAreOnesOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.cfg
	cfg.Budgets = standings{{Kind: shoal.ObjectUser, Name: "alice", Limit: 1}, {Kind: shoal.ObjectUser, Name: "bob", Limit: 1},
		{Kind: shoal.ObjectGroup, Name: "research", Limit: 1}, {Kind: shoal.ObjectGroup, Name: "bob", Limit: 1}, {Kind: shoal.ObjectPool, Name: "carol", Limit: 1}}
	server := start(t, httpapi.New(cfg).Control())
	all := []string{"alice", "bob", "research", "bob", "carol"}
	for who, want := range map[string][]string{"alice": {"alice", "research"}, "bob": {"bob"}, "carol": {"research"}, "oscar": all, "ada": all} {
		a := do(t, server, request{method: "GET", path: "/api/v1/usage", header: bearer(w.tokens[who])})
		var u api.Usage
		if err := json.Unmarshal([]byte(a.body), &u); err != nil {
			t.Fatalf("%s: %v in %d %s", who, err, a.status, a.body)
		}
		var got []string
		for _, b := range u.Budgets {
			got = append(got, b.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s sees the budgets %v, want %v", who, got, want)
		}
	}
}
