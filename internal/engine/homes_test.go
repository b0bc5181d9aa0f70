package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// mounting is a provider that mounts homes.
type mounting struct {
	provider.Provider
	mu    sync.Mutex
	err   error
	calls int
	homes map[shoal.MachineID][]provider.HomeMount
}

func (p *mounting) MountHomes(_ context.Context, id shoal.MachineID, homes []provider.HomeMount) error {
	time.Sleep(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.err == nil {
		p.homes[id] = homes
	}
	return p.err
}

func (p *mounting) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// of lists a machine's homes: "alice 20001 home/alice /shared/home/alice".
func (p *mounting) of(id shoal.MachineID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, h := range p.homes[id] {
		all = append(all, fmt.Sprint(h.UID, " ", h.Share.Source, " ", h.Sub, " ", h.Path))
	}
	return strings.Join(all, "\n")
}

// Each user's home on a share without owners is mounted in each machine, whenever the users change, and again when it failed.
func TestHomesAreMounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		user := func(name shoal.UserName, uid int, disabled bool) {
			storetest.Update(t, db, func(tx *store.Tx) error {
				u, err := tx.Users().Get(name)
				if shoal.KindOf(err) != shoal.KindNotFound && err != nil {
					return err
				}
				u.Name, u.UID, u.Disabled = name, uid, disabled
				_, err = tx.Users().Put(u)
				return err
			})
		}
		user("alice", 20001, false)
		storetest.Update(t, db, func(tx *store.Tx) error {
			_, err := tx.Shares().Put(shoal.Share{Name: "team", Source: "smb://files/team", Credentials: &shoal.SecretRef{Secret: "team"}})
			return err
		})
		p := &mounting{homes: map[shoal.MachineID][]provider.HomeMount{}}
		w := newWorldAt(t, db, fake.Config{}, lab(min1, func(p *shoal.Pool) {
			p.Mounts = []shoal.Mount{{Share: "team", Path: "/shared"}}
			p.Home = shoal.Home{Share: "team", Path: "home/{user}"}
		}))
		w.stop()
		w.around = func(next provider.Provider) provider.Provider { p.Provider = next; return p }
		w.start()
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("homes are\n%s\nwant\n%s", got, want)
			}
		}
		later(30 * time.Second)
		id := w.machines()[0].ID
		const alice = "20001 smb://files/team home/alice /shared/home/alice"
		want(p.of(id), alice)
		w.want("calls", p.calls, 1)
		// What has nothing to do with homes changes nothing there.
		storetest.Update(t, db, func(tx *store.Tx) error {
			_, err := tx.Shares().Put(shoal.Share{Name: "other", Source: "/srv/other"})
			return err
		})
		later(time.Minute)
		w.want("calls", p.calls, 1)

		p.set(errors.New("the file server refuses the password"))
		user("bob", 20002, false)
		later(time.Minute)
		why, err := w.engine.Load().WhyMachine(t.Context(), id)
		if err != nil || !strings.Contains(fmt.Sprint(why.Reasons), "refuses the password") {
			t.Errorf("why the machine: %+v, %v", why, err)
		}
		p.set(nil)
		later(time.Minute)
		want(p.of(id), alice+"\n20002 smb://files/team home/bob /shared/home/bob")
		user("alice", 20001, true)
		later(time.Minute)
		want(p.of(id), "20002 smb://files/team home/bob /shared/home/bob")
		calls := p.calls
		later(time.Hour)
		w.want("calls", p.calls, calls)
	})
}
