package agenthub

import (
	"context"
	"fmt"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// silence stands for the services behind a hub in benchmarks.
type silence struct{}

func (silence) Endpoints(context.Context, shoal.MachineID, int, []api.EndpointReport) ([]string, error) {
	return nil, nil
}
func (silence) Joined(context.Context, shoal.MachineID, int, string) error       { return nil }
func (silence) Boot(context.Context, shoal.MachineID, int, api.BootReport) error { return nil }
func (silence) Seen(shoal.MachineID, *shoal.Load)                                {}
func (silence) Connected(shoal.MachineID, bool)                                  {}
func (silence) Looked(shoal.MachineID, string)                                   {}
func (silence) Activity(context.Context, shoal.MachineID, api.Activity) error    { return nil }
func (silence) Orders(context.Context, shoal.MachineID) ([]api.TaskOrder, error) { return nil, nil }
func (silence) Report(context.Context, shoal.MachineID, []api.TaskReport, []api.Output) ([]api.Resend, error) {
	return nil, nil
}

func benchHub(b *testing.B, users, pools int) *Hub {
	db := storetest.Open(b)
	storetest.Update(b, db, func(tx *store.Tx) error {
		for i := range users {
			u := shoal.User{Name: shoal.UserName(fmt.Sprintf("user%05d", i)), UID: 20001 + i, Groups: []shoal.GroupName{"all"}}
			if _, err := tx.Users().Put(u); err != nil {
				return err
			}
		}
		for i := range pools {
			if _, err := tx.Pools().Put(shoal.Pool{Name: shoal.PoolName(fmt.Sprintf("p%d", i))}); err != nil {
				return err
			}
		}
		if _, err := tx.Groups().Put(shoal.Group{Name: "all", GID: 30001}); err != nil {
			return err
		}
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "p0", State: shoal.MachineReady, Epoch: 1})
		return err
	})
	h := New(Config{Store: db, Key: []byte("k"), Engine: silence{}, Sessions: silence{}, Batch: silence{}})
	if err := h.refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	return h
}

// BenchmarkHeartbeat is what an idle machine costs once a minute, but for HTTP.
func BenchmarkHeartbeat(b *testing.B) {
	h := benchHub(b, 50, 3)
	token := h.machineToken(Caller{"m-1", 1})
	for b.Loop() {
		c, err := h.Machine(b.Context(), token)
		if err == nil {
			_, err = h.Report(b.Context(), c, api.Report{Activity: &api.Activity{}, Load: &shoal.Load{CPUPercent: 3}})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLook is what a change of the store costs that is no affair of the machines'.
func BenchmarkLook(b *testing.B) {
	for _, users := range []int{50, 10_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			h := benchHub(b, users, 3)
			for b.Loop() {
				if err := h.refresh(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAccounts is what a change of a user costs, for all pools and machines together.
func BenchmarkAccounts(b *testing.B) {
	for _, users := range []int{50, 10_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			h := benchHub(b, users, 3)
			i := 0
			for b.Loop() {
				i++
				storetest.Update(b, h.cfg.Store, func(tx *store.Tx) error {
					_, err := tx.Users().Put(shoal.User{Name: "user00000", UID: 20001, Shell: fmt.Sprintf("/bin/sh%d", i)})
					return err
				})
				if err := h.refresh(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
