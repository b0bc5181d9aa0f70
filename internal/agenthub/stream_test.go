package agenthub_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/store"
)

func TestSnapshot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.update(func(tx *store.Tx) error { return put(tx.Users().Put, shoal.User{Name: "nobody"}) }) // no uid: root's, to some
		w.svc.orders = []api.TaskOrder{{User: "alice", Command: "true"}}
		got := w.snapshot(w.stream(m1()))
		rev := got.Accounts.Rev
		if rev == 0 || rev > w.db.Rev() {
			t.Errorf("accounts of revision %d, the store's is %d", rev, w.db.Rev())
		}
		want := &api.Snapshot{
			Machine: "m-1", Pool: "lab", UserSlices: true, Resources: shoal.Resources{CPUs: 2000}, Heartbeat: shoal.Duration(2 * time.Minute), Lease: shoal.Duration(5 * time.Minute),
			Setup: &shoal.Setup{Command: "true"}, Tasks: w.svc.orders,
			Mounts: []api.AgentMount{{Path: "/shared", Homes: true, GroupDirs: []shoal.GroupDir{{Path: "projects/{group}"}}}, {Path: "/ro", ReadOnly: true}},
			Accounts: api.Accounts{Rev: rev, CAKeys: []string{"ssh-ed25519 AAAA gateway"},
				Users: []api.Account{
					{Name: "alice", UID: 20001, GID: 20001, Home: "/shared/home/alice", Shell: "/bin/bash", Principal: "alice@lab"},
					{Name: "bob", UID: 20002, GID: 20002, Home: "/shared/home/bob", Shell: "/bin/bash", Principal: "bob@lab"}},
				Groups: []api.Group{{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "bob"}}}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestAccountsFollow: what changes for a machine is sent, in a moment, and nothing else is.
func TestAccountsFollow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		last := w.snapshot(s).Accounts.Rev
		names := func() string {
			t.Helper()
			r := s.next()
			if r.Accounts == nil {
				t.Fatalf("%+v", r)
			}
			if r.Accounts.Rev <= last || r.Accounts.Rev > w.db.Rev() {
				t.Errorf("revision %d after %d", r.Accounts.Rev, last)
			}
			last = r.Accounts.Rev
			var all []string
			for _, u := range r.Accounts.Users {
				all = append(all, fmt.Sprintf("%s %t", u.Name, u.Disabled))
			}
			return strings.Join(all, ", ")
		}
		user := func(u shoal.User) {
			w.update(func(tx *store.Tx) error { return put(tx.Users().Put, u) })
		}
		user(shoal.User{Name: "carol", UID: 20003})
		if got := names(); got != "alice false, bob false, carol false" {
			t.Error(got)
		}
		user(shoal.User{Name: "carol", UID: 20003, Disabled: true})
		if got := names(); got != "alice false, bob false, carol true" {
			t.Error(got)
		}
		w.update(func(tx *store.Tx) error { return tx.Users().Delete("carol") })
		if got := names(); got != "alice false, bob false" {
			t.Error(got)
		}
		w.update(func(tx *store.Tx) error { return tx.Groups().Delete("research") })
		names()
		time.Sleep(time.Second)
		for i := range 50 { // what is no affair of the machine's
			w.update(func(tx *store.Tx) error { return tx.SetSetting("x", fmt.Sprint(i)) })
		}
		user(shoal.User{Name: "bob", UID: 20002, Groups: []shoal.GroupName{"research"}, HasPassword: true})
		time.Sleep(5 * time.Second)
		s.silent()
	})
}

// TestCrowd: however many changes come, each stream gets few Accounts, and the last is the newest.
func TestCrowd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		w.snapshot(s)
		for i := range 200 {
			w.update(func(tx *store.Tx) error {
				return put(tx.Users().Put, shoal.User{Name: shoal.UserName(fmt.Sprintf("u%03d", i)), UID: 21000 + i})
			})
		}
		sent := 0
		for users := 2; users < 202; sent++ {
			users = len(s.next().Accounts.Users)
		}
		if sent > 20 {
			t.Errorf("200 changes at once were sent in %d records", sent)
		}
		time.Sleep(time.Minute / 2)
		s.silent()
	})
}

func TestNewerStream(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.stream(m1())
		w.snapshot(first)
		second := w.stream(m1())
		w.snapshot(second)
		wantKind(t, <-first.ended, shoal.KindConflict)
		if !w.Send("m-1", api.Record{Message: &api.Message{Text: "hello"}}) {
			t.Error("a record was not taken")
		}
		if r := second.next(); r.Message == nil || r.Message.Text != "hello" {
			t.Errorf("%+v", r)
		}
		second.stop()
		<-second.ended
		synctest.Wait()
		if told := strings.Join(w.svc.take(), ", "); told != "connected m-1 true, connected m-1 true, connected m-1 false" {
			t.Errorf("told %s", told)
		}
		if w.Send("m-1", api.Record{Message: &api.Message{}}) || w.Send("m-9", api.Record{}) {
			t.Error("a record was taken for a machine without a stream")
		}
		// A stream of an older start, late, does not end that of the newer.
		w.machine(func(m *shoal.Machine) { m.Epoch = 2 })
		now := w.stream(agenthub.Caller{Machine: "m-1", Epoch: 2})
		w.snapshot(now)
		wantKind(t, <-w.stream(m1()).ended, shoal.KindUnauthenticated)
		now.silent()
	})
}

// TestSlowReader: an agent that does not read loses the queue and gets a Snapshot of what is.
func TestSlowReader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		w.snapshot(s)
		w.svc.mu.Lock()
		w.svc.orders = make([]api.TaskOrder, 5000)
		w.svc.mu.Unlock()
		taken := 0
		for i := range 5000 {
			if w.Send("m-1", api.Record{Run: &api.TaskOrder{User: "alice", Ref: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1", Index: i}, Attempt: 1}}}) {
				taken++
			}
		}
		if taken > 2100 { // one batch in the sender's hands and one queue
			t.Errorf("%d records wait for an agent that does not read", taken)
		}
		for {
			r := s.next()
			if r.Snapshot != nil {
				if len(r.Snapshot.Tasks) != 5000 {
					t.Errorf("the snapshot has %d tasks", len(r.Snapshot.Tasks))
				}
				break
			}
		}
		for !w.Send("m-1", api.Record{Stop: &api.StopOrder{}}) { // another snapshot is due: it must be read first
			if r := s.next(); r.Snapshot == nil && r.Run == nil {
				t.Fatalf("%+v", r)
			}
		}
		r := s.next()
		for r.Snapshot != nil || r.Run != nil { // what came to the queue after one overflow, and before another
			r = s.next()
		}
		if r.Stop == nil {
			t.Errorf("%+v", r)
		}
	})
}

// TestStranger: an order for a user who was just added comes after her account.
func TestStranger(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		w.snapshot(s)
		w.svc.mu.Lock()
		w.svc.orders = []api.TaskOrder{{User: "carol"}}
		w.svc.mu.Unlock()
		w.update(func(tx *store.Tx) error { return put(tx.Users().Put, shoal.User{Name: "carol", UID: 20003}) })
		w.Send("m-1", api.Record{Run: &api.TaskOrder{User: "carol"}})
		known := false
		for {
			r := s.next()
			accounts := r.Accounts
			if r.Snapshot != nil {
				accounts = &r.Snapshot.Accounts
			}
			if accounts != nil && slices.ContainsFunc(accounts.Users, func(a api.Account) bool { return a.Name == "carol" }) {
				known = true
			}
			if r.Run != nil || r.Snapshot != nil && len(r.Snapshot.Tasks) > 0 {
				break
			}
		}
		if !known {
			t.Error("the order came before the account")
		}
	})
}

// TestQuiet: an idle machine costs next to nothing, and one that is gone loses its stream.
func TestQuiet(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		w.snapshot(s)
		began, beats := time.Now(), 0
		for time.Since(began) < time.Hour {
			if r := <-s.records; r != (api.Record{}) {
				t.Errorf("%+v", r)
			}
			beats++
			if _, err := w.Report(t.Context(), m1(), api.Report{}); err != nil {
				t.Error(err)
			}
		}
		if beats < 20 || beats > 90 {
			t.Errorf("%d beats in an hour", beats)
		}
		w.machine(func(m *shoal.Machine) { m.State = shoal.MachineGone })
		for {
			select {
			case <-s.records:
				continue
			case err := <-s.ended:
				wantKind(t, err, shoal.KindUnauthenticated)
			}
			break
		}
	})
}

// TestSilent: a stream of which nothing is heard for the length of a lease leads nowhere, though nobody has closed it.
func TestSilent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		w.snapshot(s)
		time.Sleep(4 * time.Minute)
		if _, err := w.Report(t.Context(), m1(), api.Report{}); err != nil {
			t.Fatal(err)
		}
		heard := time.Now()
		for {
			select {
			case <-s.records:
				continue
			case err := <-s.ended:
				wantKind(t, err, shoal.KindUnavailable)
			}
			break
		}
		if after := time.Since(heard); after < 5*time.Minute || after > 9*time.Minute {
			t.Errorf("it ended after %s", after)
		}
	})
}

func TestAccountsReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ready := func(rev shoal.Rev) chan error {
			ch := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			t.Cleanup(cancel)
			go func() { ch <- w.AccountsReady(ctx, "m-1", rev) }()
			return ch
		}
		waits := func(ch chan error) {
			t.Helper()
			time.Sleep(time.Second)
			select {
			case err := <-ch:
				t.Errorf("it does not wait: %v", err)
			default:
			}
		}
		report := func(rev shoal.Rev) {
			t.Helper()
			if _, err := w.Report(t.Context(), m1(), api.Report{Accounts: rev}); err != nil {
				t.Fatal(err)
			}
		}
		early := ready(1)
		waits(early)
		s := w.stream(m1())
		first := w.snapshot(s).Accounts.Rev
		waits(early)
		report(first)
		if err := <-early; err != nil {
			t.Error(err)
		}
		var carol shoal.User
		w.update(func(tx *store.Tx) (err error) {
			carol, err = tx.Users().Put(shoal.User{Name: "carol", UID: 20003})
			return err
		})
		late := ready(carol.Rev)
		rev := s.next().Accounts.Rev
		waits(late)
		report(first)
		waits(late)
		report(rev)
		if err := <-late; err != nil {
			t.Error(err)
		}
		// A change of hers that no agent needs to know of makes nobody wait.
		w.update(func(tx *store.Tx) (err error) {
			carol.HasPassword = true
			carol, err = tx.Users().Put(carol)
			return err
		})
		asked := time.Now()
		if err := <-ready(carol.Rev); err != nil || time.Since(asked) > time.Second {
			t.Errorf("%v after %v", err, time.Since(asked))
		}
		// A revision that does not exist yet: in vain, and the wait ends with its context.
		wantKind(t, <-ready(w.db.Rev()+1000), shoal.KindCancelled)
		// A new start has nothing in effect.
		w.machine(func(m *shoal.Machine) { m.Epoch = 2 })
		w.snapshot(w.stream(agenthub.Caller{Machine: "m-1", Epoch: 2}))
		report(1 << 40) // of the old one, late
		wantKind(t, <-ready(1), shoal.KindCancelled)
	})
}

// TestRestart: agents that come back to a new process are asked again, and what they have counts.
func TestRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		before := w.snapshot(s).Accounts
		s.stop()
		<-s.ended
		w.begin()
		after := w.snapshot(w.stream(m1())).Accounts
		if after.Rev < before.Rev {
			t.Errorf("revision %d after %d", after.Rev, before.Rev)
		}
		if _, err := w.Report(t.Context(), m1(), api.Report{Accounts: after.Rev}); err != nil {
			t.Fatal(err)
		}
		if err := w.AccountsReady(t.Context(), "m-1", w.db.Rev()); err != nil {
			t.Error(err)
		}
	})
}

// TestNewGateway: a change of the keys alone reaches machines with the next look.
func TestNewGateway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.stream(m1())
		rev := w.snapshot(s).Accounts.Rev
		time.Sleep(time.Second)
		synctest.Wait()
		w.caKeys = append(w.caKeys, "ssh-ed25519 BBBB second")
		w.update(func(tx *store.Tx) error { return tx.SetSetting("gateway", "2") })
		if r := s.next(); r.Accounts == nil || len(r.Accounts.CAKeys) != 2 || r.Accounts.Rev <= rev {
			t.Errorf("%+v", r)
		}
	})
}
