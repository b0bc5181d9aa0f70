package catalog_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/catalog"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// fixture is a catalog on a real store, with a world that can be told what to refuse.
type fixture struct {
	*catalog.Catalog
	t         testing.TB
	db        *store.DB
	passwords *local.Directory
	refuse    map[string]error // "pool lab", "user alice"
	asked     []string
	ended     []string
	woken     int
}

func (f *fixture) CheckPool(_ context.Context, p shoal.Pool, _ []shoal.Share) error {
	f.asked = append(f.asked, "pool "+string(p.Name))
	return f.refuse["pool "+string(p.Name)]
}

func (f *fixture) CheckUser(_ context.Context, u shoal.User) error {
	f.asked = append(f.asked, fmt.Sprintf("user %s %d", u.Name, u.UID))
	return f.refuse["user "+string(u.Name)]
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	db := storetest.Open(t)
	f := &fixture{t: t, db: db, passwords: local.New(store.Credentials{DB: db}), refuse: map[string]error{}}
	f.Catalog = catalog.New(catalog.Config{
		Store: db, Check: f, Passwords: f.passwords,
		EndSession: func(_ context.Context, id shoal.SessionID) error { f.ended = append(f.ended, string(id)); return nil },
		CancelJob: func(_ context.Context, id shoal.JobID) error {
			f.ended = append(f.ended, "job "+string(id))
			return shoal.Errorf(shoal.KindConflict, "it has ended")
		},
		Wake: func() { f.woken++ },
	})
	return f
}

func host() access.Subject { return access.Subject{Host: true} }

// apply applies documents, which must succeed, and returns the fates: "Pool lab created".
func (f *fixture) apply(text string) []string {
	f.t.Helper()
	got, err := f.try(text, false)
	if err != nil {
		f.t.Fatalf("%v\n%s", err, spec.Format(shoal.MistakesOf(err)))
	}
	return got
}

func (f *fixture) try(text string, dry bool) ([]string, error) {
	f.t.Helper()
	set, err := spec.Parse(spec.File{Data: []byte(text)})
	if err != nil {
		f.t.Fatalf("%v", shoal.MistakesOf(err))
	}
	req := api.ApplyRequest{DryRun: dry, Shares: set.Shares, Groups: set.Groups, Users: set.Users, Pools: set.Pools}
	res, err := f.Apply(context.Background(), host(), req)
	var lines []string
	for _, c := range res.Changes {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.Kind, c.Name, c.Action, strings.Join(c.Diff, "; "))))
	}
	return lines, err
}

func (f *fixture) user(name shoal.UserName) (u shoal.User) {
	f.t.Helper()
	storetest.View(f.t, f.db, func(tx *store.Tx) (err error) { u, err = tx.Users().Get(name); return err })
	return u
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

const team = `
kind: Share
name: team
source: /srv/team
---
kind: Group
name: research
members: [alice]
---
kind: User
name: alice
uid: 20005
---
kind: User
name: bob
groups: [research]
---
kind: Pool
name: lab
size: {max: 4}
mounts: [{share: team, path: /shared}]
home: {share: team}
`

func TestApply(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	plan, err := f.try(team, true)
	if err != nil {
		t.Fatal(err)
	}
	if rev := f.db.Rev(); rev != 0 {
		t.Errorf("a dry run made revision %d", rev)
	}
	got := f.apply(team)
	want(t, got, "Share team created", "Group research created", "User alice created", "User bob created", "Pool lab created")
	want(t, got, plan...)
	if bob := f.user("bob"); bob.UID != shoal.FirstID || bob.Role != shoal.RoleMember {
		t.Errorf("bob is %+v", bob)
	}
	rev, woken := f.db.Rev(), f.woken
	f.asked = nil
	want(t, f.apply(team), "Share team unchanged", "Group research unchanged", "User alice unchanged", "User bob unchanged", "Pool lab unchanged")
	if f.db.Rev() != rev || f.woken != woken || f.asked != nil {
		t.Errorf("applying again changed something: revision %d to %d, asked %v", rev, f.db.Rev(), f.asked)
	}
	larger := strings.Replace(team, "max: 4", "max: 8", 1)
	if plan, err := f.try(larger, true); err != nil || !slices.Contains(plan, "Pool lab changed size.max: 4 → 8") {
		t.Errorf("%v, %v", plan, err)
	}
	f.apply(larger)
	var events []shoal.Event
	storetest.View(t, f.db, func(tx *store.Tx) (err error) {
		events, err = tx.EventsAbout(shoal.ObjectPool, "lab", 1)
		return err
	})
	if len(events) != 1 || events[0].Sentence != "pool lab was changed by the host: size.max: 4 → 8" || events[0].Code != "poolChanged" {
		t.Errorf("%+v", events)
	}
}

// TestMistakes: all at once, and nothing is stored.
func TestMistakes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply(team)
	rev := f.db.Rev()
	_, err := f.try(`
kind: Pool
name: train
default: true
mounts: [{share: nowhere, path: /data}]
---
kind: Pool
name: other
default: true
---
kind: Pool
name: lab
provider: fake
---
kind: User
name: carol
uid: 20001
groups: [strangers]
keys: ["not a key"]
---
kind: User
name: alice
uid: 20009
---
kind: Group
name: bob
members: [nobody-here]
---
kind: Group
name: late
gid: 20005
---
kind: User
name: dora
`, false)
	if shoal.KindOf(err) != shoal.KindInvalid {
		t.Fatalf("%v", err)
	}
	// The key is found before what is stored is looked at.
	want(t, lines(err), "user carol: keys[0]: cannot read an SSH key: the line holds none")
	_, err = f.try(strings.TrimSpace(`
kind: Pool
name: train
default: true
mounts: [{share: nowhere, path: /data}]
---
kind: Pool
name: other
default: true
---
kind: Pool
name: lab
provider: fake
---
kind: User
name: carol
uid: 20001
groups: [strangers]
---
kind: User
name: alice
uid: 20009
---
kind: Group
name: bob
members: [nobody-here]
---
kind: Group
name: late
gid: 20005
`), false)
	want(t, lines(err),
		"group bob: members[0]: there is no user \"nobody-here\"",
		"group bob: name: there is a user of that name",
		"group late: gid: 20005 belongs to user alice, or did once",
		"pool lab: provider: it cannot change from local to fake",
		"pool other: default: pool train is the default already",
		"pool train: default: pool other is the default already",
		"pool train: mounts[0].share: there is no share \"nowhere\"",
		"user alice: uid: it cannot change from 20005 to 20009",
		"user carol: groups[0]: there is no group \"strangers\"",
		"user carol: uid: 20001 belongs to user bob, or did once",
	)
	if f.db.Rev() != rev {
		t.Error("something was stored")
	}
}

// TestNamesThatAreNotThere: who mistypes a name is told what she probably meant, and else what to do.
func TestNamesThatAreNotThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.try(`kind: Share
name: team
source: /srv/team
---
kind: Group
name: research
members: [carl, nobody-here]
---
kind: User
name: carol
groups: [reserch, others]
---
kind: Pool
name: lab
mounts: [{share: taem, path: /shared}, {share: data, path: /data}]
`, false)
	hints := map[string]string{}
	for _, m := range shoal.MistakesOf(err) {
		hints[m.Path] = m.Hint
	}
	if diff := cmp.Diff(map[string]string{
		"group research: members[0]": "did you mean carol?",
		"group research: members[1]": "add a document of kind User, or use `shoal user add`",
		"user carol: groups[0]":      "did you mean research?",
		"user carol: groups[1]":      "add a document of kind Group",
		"pool lab: mounts[0].share":  "did you mean team?",
		"pool lab: mounts[1].share":  "add a document of kind Share",
	}, hints); diff != "" {
		t.Error(diff)
	}
}

func lines(err error) []string {
	var all []string
	for _, m := range shoal.MistakesOf(err) {
		all = append(all, m.Path+": "+m.Msg)
	}
	slices.Sort(all)
	return all
}

// TestWorldRefuses: what the provider cannot do is a mistake beside others; that it does not answer is not.
func TestWorldRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.refuse["pool lab"] = shoal.Errorf(shoal.KindInvalid, "there is no image /x").WithHint("make one")
	f.refuse["user bob"] = shoal.Errorf(shoal.KindConflict, "the host has an account bob")
	_, err := f.try(team, false)
	want(t, lines(err), "pool lab: there is no image /x", "user bob: the host has an account bob")
	f.refuse["user bob"] = shoal.Errorf(shoal.KindUnavailable, "it does not answer")
	if _, err := f.try(team, false); shoal.KindOf(err) != shoal.KindUnavailable {
		t.Errorf("%v", err)
	}
	if f.db.Rev() != 0 {
		t.Error("something was stored")
	}
}

// A share that changes may be out of reach for the pools that mount it, also where they stay as they are.
func TestChangedShareIsReachable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply("kind: Share\nname: team\nsource: /srv/team\n---\nkind: Pool\nname: lab\nmounts: [{share: team, path: /shared}]\n---\nkind: Pool\nname: other\n")
	f.asked = nil
	f.apply("kind: Share\nname: team\nsource: /srv/team\n") // unchanged: nobody is asked
	f.refuse["pool lab"] = shoal.Errorf(shoal.KindInvalid, "cannot reach share team")
	_, err := f.try("kind: Share\nname: team\nsource: /no/such\n", false)
	want(t, lines(err), "pool lab: cannot reach share team")
	if len(f.asked) != 1 {
		t.Errorf("asked about %v", f.asked)
	}
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply("kind: Pool\nname: lab\n")
	var p shoal.Pool
	storetest.View(t, f.db, func(tx *store.Tx) (err error) { p, err = tx.Pools().Get("lab"); return err })
	first := p
	p.Seats = 9
	if _, err := f.Apply(context.Background(), host(), api.ApplyRequest{Pools: []shoal.Pool{p}}); err != nil {
		t.Fatal(err)
	}
	first.Seats = 10
	if _, err := f.Apply(context.Background(), host(), api.ApplyRequest{Pools: []shoal.Pool{first}}); shoal.KindOf(err) != shoal.KindConflict || !strings.Contains(lines(err)[0], "changed meanwhile") {
		t.Errorf("%v %v", err, lines(err))
	}
}

// A pool that is being deleted is a matter of its state, unless what was written is wrong as well.
func TestBeingDeleted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply("kind: Pool\nname: lab\n")
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		p, err := tx.Pools().Get("lab")
		if err != nil {
			return err
		}
		p.Deleting = true
		_, err = tx.Pools().Put(p)
		return err
	})
	_, err := f.try("kind: Pool\nname: lab\nseats: 3\n", false)
	want(t, lines(err), "pool lab: it is being deleted")
	if shoal.KindOf(err) != shoal.KindConflict || !strings.Contains(shoal.MistakesOf(err)[0].Hint, "shoal pool delete lab --wait") {
		t.Errorf("%v: %+v", err, shoal.MistakesOf(err))
	}
	if _, err = f.try("kind: Pool\nname: lab\nmounts: [{share: none, path: /x}]\n", false); shoal.KindOf(err) != shoal.KindInvalid || len(lines(err)) != 2 {
		t.Errorf("%v: %v", err, lines(err))
	}
}

func TestShareSource(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply(team)
	moved := "kind: Share\nname: team\nsource: /srv/other\n"
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady})
		return err
	})
	if _, err := f.try(moved, false); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("the source moved under a machine: %v", err)
	}
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineGone})
		return err
	})
	want(t, f.apply(moved), "Share team changed source: /srv/team → /srv/other")
	if err := f.DeleteShare(context.Background(), host(), "team"); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("a mounted share was deleted: %v", err)
	}
	f.apply("kind: Pool\nname: lab\nsize: {max: 4}\n")
	if err := f.DeleteShare(context.Background(), host(), "team"); err != nil {
		t.Error(err)
	}
}

// TestNumbersAreNeverReused: a number stays with its name.
func TestNumbersAreNeverReused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := context.Background()
	add := func(name shoal.UserName) int {
		t.Helper()
		u, err := f.AddUser(ctx, host(), shoal.User{Name: name}, "")
		if err != nil {
			t.Fatal(err, lines(err))
		}
		return u.UID
	}
	alice, bob := add("alice"), add("bob")
	if alice != shoal.FirstID || bob != alice+1 {
		t.Errorf("%d, %d", alice, bob)
	}
	if _, err := f.RemoveUser(ctx, host(), "alice"); err != nil {
		t.Fatal(err)
	}
	if carol := add("carol"); carol != bob+1 {
		t.Errorf("carol got %d", carol)
	}
	f.apply("kind: Group\nname: research\n")
	if dora := add("dora"); dora != bob+3 {
		t.Errorf("dora got %d, after a group took a number", dora)
	}
	if _, err := f.AddUser(ctx, host(), shoal.User{Name: "eve", UID: alice}, ""); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("eve got alice's number: %v", err)
	}
	if again := add("alice"); again != alice {
		t.Errorf("alice came back as %d", again)
	}
	if _, err := f.AddUser(ctx, host(), shoal.User{Name: "alice"}, ""); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("a second alice: %v", err)
	}
	f.apply("kind: User\nname: last\nuid: 59999\n")
	if next := add("next"); next != bob+4 {
		t.Errorf("after a high number was written the next is %d", next)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := context.Background()
	f.apply(team)
	if _, err := f.AddUser(ctx, host(), shoal.User{Name: "carol"}, "short"); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("a bad password: %v", err)
	}
	u, err := f.AddUser(ctx, host(), shoal.User{Name: "carol", Groups: []shoal.GroupName{"research"}, Role: shoal.RoleAdmin}, "correct horse")
	if err != nil || !u.HasPassword {
		t.Fatalf("%+v, %v", u, err)
	}
	if err := f.passwords.CheckPassword(ctx, "carol", "correct horse", "1.2.3.4"); err != nil {
		t.Error(err)
	}
	token, _, err := f.passwords.IssueToken(ctx, "carol", 0)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		if _, err := tx.Jobs().Put(shoal.Job{ID: "1", User: "carol", State: shoal.JobQueued}); err != nil {
			return err
		}
		_, err := tx.Sessions().Put(shoal.Session{ID: "s-1", User: "carol", State: shoal.SessionActive})
		return err
	})
	if _, err := f.RemoveUser(ctx, host(), "carol"); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("removed with a session: %v", err)
	}
	if u, err := f.DisableUser(ctx, host(), "carol"); err != nil || !u.Disabled {
		t.Errorf("%+v, %v", u, err)
	}
	want(t, f.ended, "job 1", "s-1")
	if _, err := f.passwords.TokenUser(ctx, token); shoal.KindOf(err) != shoal.KindUnauthenticated {
		t.Errorf("the token still works: %v", err)
	}
	f.apply("kind: User\nname: carol\nrole: admin\ngroups: [research]\n")
	if !f.user("carol").Disabled {
		t.Error("apply enabled a disabled user")
	}
	if !f.user("carol").HasPassword {
		t.Error("apply forgot the password")
	}
	if u, err := f.EnableUser(ctx, host(), "carol"); err != nil || u.Disabled {
		t.Errorf("%+v, %v", u, err)
	}
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		return errors.Join(tx.Jobs().Delete("1"), tx.Sessions().Delete("s-1"))
	})
	removed, err := f.RemoveUser(ctx, host(), "carol")
	if err != nil {
		t.Fatal(err)
	}
	want(t, removed.Diff, fmt.Sprintf("files in /srv/team/home/carol stay; they belong to uid %d", u.UID))
	if _, err := f.RemoveUser(ctx, host(), "carol"); shoal.KindOf(err) != shoal.KindNotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestDisableByApply(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply(team)
	storetest.Update(t, f.db, func(tx *store.Tx) error {
		_, err := tx.Sessions().Put(shoal.Session{ID: "s-1", User: "bob", State: shoal.SessionActive})
		return err
	})
	f.apply("kind: User\nname: bob\ndisabled: true\n")
	want(t, f.ended, "s-1")
}

func TestGroups(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply(team)
	if _, err := f.RemoveUser(context.Background(), host(), "alice"); err != nil {
		t.Fatal(err)
	}
	storetest.View(t, f.db, func(tx *store.Tx) error {
		g, err := tx.Groups().Get("research")
		if len(g.Members) != 0 {
			t.Errorf("a removed user is still a member: %+v", g)
		}
		return err
	})
	if err := f.DeleteGroup(context.Background(), host(), "research"); err != nil {
		t.Fatal(err)
	}
	if bob := f.user("bob"); len(bob.Groups) != 0 {
		t.Errorf("a removed group still has a member: %+v", bob)
	}
}

func TestMembersMayNot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.apply(team)
	ctx := context.Background()
	bob := access.Subject{User: "bob", Role: shoal.RoleOperator}
	for what, err := range map[string]error{
		"apply": func() error {
			_, err := f.Apply(ctx, bob, api.ApplyRequest{Pools: []shoal.Pool{{Name: "x"}}})
			return err
		}(),
		"add":    func() error { _, err := f.AddUser(ctx, bob, shoal.User{Name: "x"}, ""); return err }(),
		"remove": func() error { _, err := f.RemoveUser(ctx, bob, "alice"); return err }(),
		"enable": func() error { _, err := f.EnableUser(ctx, bob, "bob"); return err }(),
		"share":  f.DeleteShare(ctx, bob, "team"),
		"group":  f.DeleteGroup(ctx, bob, "research"),
	} {
		if shoal.KindOf(err) != shoal.KindDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(good)))
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ssh.NewPublicKey(&short.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for key, ok := range map[string]bool{
		line:                     true,
		line + " alice@laptop":   true,
		"command=\"ls\" " + line: false,
		"ssh-ed25519 AAAA":       false,
		line[:len(line)-8]:       false,
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(weak))): false,
	} {
		req := api.ApplyRequest{DryRun: true, Users: []shoal.User{{Name: "alice", Keys: []string{key}}}}
		if _, err := f.Apply(context.Background(), host(), req); (err == nil) != ok {
			t.Errorf("%q: %v %v", key, err, lines(err))
		}
	}
}

// TestLostKey: whoever got a token by a key that is taken away has it no more; a comment is no key.
func TestLostKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := func(n int) string {
		return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + strings.Repeat(string(rune('A'+n)), 43)
	}
	apply := func(lines ...string) {
		t.Helper()
		text := "kind: User\nname: alice\nkeys:\n"
		for _, l := range lines {
			text += "- " + l + "\n"
		}
		f.apply(text)
	}
	apply(key(0)+" laptop", key(1))
	for _, c := range []struct {
		keys []string
		ends bool
	}{
		{[]string{key(0) + " renamed", key(1)}, false},
		{[]string{key(1), key(0), key(2)}, false},
		{[]string{key(0), key(2)}, true},
		{nil, true},
	} {
		storetest.Update(t, f.db, func(tx *store.Tx) error {
			return tx.PutToken("hash", store.TokenRow{Subject: "alice", Kind: "web"})
		})
		if len(c.keys) == 0 {
			f.apply("kind: User\nname: alice\nkeys: []\n")
		} else {
			apply(c.keys...)
		}
		var err error
		storetest.View(t, f.db, func(tx *store.Tx) error { _, err = tx.Token("hash"); return nil })
		if got := shoal.KindOf(err) == shoal.KindNotFound; got != c.ends {
			t.Errorf("after %q the token has ended: %v, want %v", c.keys, got, c.ends)
		}
	}
}
