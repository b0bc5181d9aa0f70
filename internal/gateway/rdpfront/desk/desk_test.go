package desk

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/identity"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// people know one password.
type people struct {
	asked []string // user at source
	users map[shoal.UserName]shoal.User
}

func (p *people) User(_ context.Context, name shoal.UserName) (shoal.User, bool) {
	u, ok := p.users[name]
	return u, ok
}

func (p *people) CheckPassword(_ context.Context, name shoal.UserName, password, source string) error {
	p.asked = append(p.asked, string(name)+" at "+source)
	if password != "the password of "+string(name) {
		return identity.Denied()
	}
	return nil
}

func TestDecide(t *testing.T) {
	t.Parallel()
	users := []shoal.User{{Name: "alice"}, {Name: "bob"}, {Name: "gone", Disabled: true}, {Name: "margarete-a"}, {Name: "margarete-b"}, {Name: "longername"}}
	look := func(name shoal.UserName) standing {
		switch i := slices.IndexFunc(users, func(u shoal.User) bool { return u.Name == name }); {
		case i < 0:
			return absent
		case users[i].Disabled:
			return disabled
		}
		return good
	}
	machines := []shoal.Machine{{ID: "m-1", State: shoal.MachineReady, Health: shoal.HealthUp, Address: "10.0.0.1:22"},
		{ID: "m-2", State: shoal.MachineReady, Health: shoal.HealthDown, Address: "10.0.0.2:22"}, {ID: "m-3", State: shoal.MachineBooting}}
	on := func(user shoal.UserName, machine shoal.MachineID) shoal.Session {
		return shoal.Session{User: user, Machine: machine, State: shoal.SessionDisconnected}
	}
	found := on("alice", "m-1")
	found.Found = true
	for _, c := range []struct {
		what     string
		name     string
		known    []shoal.UserName
		sessions []shoal.Session
		user     shoal.UserName
		isKnown  bool
		machine  shoal.MachineID
		refused  string
	}{
		{what: "a name without anything", name: "alice", refused: "mayNotStart"},
		{what: "her session", name: "alice", sessions: []shoal.Session{on("alice", "m-1")}, user: "alice", machine: "m-1"},
		{what: "somebody else's session", name: "alice", sessions: []shoal.Session{on("bob", "m-1")}, refused: "mayNotStart"},
		{what: "a session that only a machine tells of", name: "alice", sessions: []shoal.Session{found}, refused: "mayNotStart"},
		{what: "a session on a machine that is down", name: "alice", sessions: []shoal.Session{on("alice", "m-2")}, refused: "mayNotStart"},
		{what: "a session that waits", name: "alice", sessions: []shoal.Session{on("alice", "")}, refused: "mayNotStart"},
		{what: "a session on a machine that boots", name: "alice", sessions: []shoal.Session{on("alice", "m-3")}, refused: "mayNotStart"},
		{what: "known here", name: "alice", known: []shoal.UserName{"bob", "alice"}, user: "alice", isKnown: true},
		{what: "another is known here", name: "alice", known: []shoal.UserName{"bob"}, refused: "mayNotStart"},
		{what: "capital letters", name: "Alice", known: []shoal.UserName{"alice"}, user: "alice", isKnown: true},
		{what: "a domain", name: `LAB\alice`, known: []shoal.UserName{"alice"}, user: "alice", isKnown: true},
		{what: "no name", known: []shoal.UserName{"bob", "alice"}, user: "bob", isKnown: true},
		{what: "no name, nobody known", refused: "unknown"},
		{what: "a name nobody has", name: "owner", known: []shoal.UserName{"alice"}, user: "alice", isKnown: true},
		{what: "a name nobody has, nobody known", name: "owner", sessions: []shoal.Session{on("alice", "m-1")}, refused: "unknown"},
		{what: "disabled", name: "gone", sessions: []shoal.Session{on("gone", "m-1")}, refused: "unknown"},
		{what: "disabled, and another is known", name: "gone", known: []shoal.UserName{"gone", "bob"}, refused: "unknown"},
		{what: "disabled, but known", known: []shoal.UserName{"gone", "bob"}, user: "bob", isKnown: true},
		{what: "cut, known here", name: "margarete", known: []shoal.UserName{"margarete-b"}, user: "margarete-b", isKnown: true},
		{what: "cut, one with a session", name: "margarete", sessions: []shoal.Session{on("margarete-a", "m-1"), on("margarete-a", "m-2")}, user: "margarete-a", machine: "m-1"},
		{what: "cut, two with a session", name: "margarete", sessions: []shoal.Session{on("margarete-a", "m-1"), on("margarete-b", "m-1")}, refused: "unknown"},
		{what: "short of the cut", name: "margaret", sessions: []shoal.Session{on("margarete-a", "m-1")}, refused: "unknown"},
		{what: "cut, and nobody", name: "longernam", refused: "unknown"},
	} {
		l, err := decide(c.name, c.known, look, c.sessions, machines)
		refused := ""
		if r, ok := errors.AsType[*route.Refusal](err); ok {
			refused = r.Reason.Code
		}
		if l.User != c.user || l.Known != c.isKnown || l.Machine != c.machine || refused != c.refused || (l.Machine != "") != (l.Address != "") {
			t.Errorf("%s: %+v, %v", c.what, l, err)
		}
	}
}

func newDesk(t *testing.T) (*Desk, *people) {
	t.Helper()
	p := &people{users: map[shoal.UserName]shoal.User{"alice": {Name: "alice"}, "bob": {Name: "bob"}}}
	return New(Config{Store: storetest.Open(t), Dir: filepath.Join(t.TempDir(), "desktops"), People: p, Address: func(shoal.PoolName, string) (string, string) { return "127.0.0.1:3389", "" }}), p
}

func attend(d *Desk, user shoal.UserName, machine shoal.MachineID, source string, active time.Time) (v *Visit, proved <-chan struct{}, leave func()) {
	v = &Visit{User: user, Pool: "lab", Machine: machine, Source: source, Active: func() time.Time { return active }, Wrong: func() {}}
	proved, leave = d.Attend(v)
	return v, proved, leave
}

func is(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestPasswordsAreLookedAtForWhoIsWaitedForThere(t *testing.T) {
	t.Parallel()
	d, p := newDesk(t)
	ctx, now := t.Context(), time.Now()
	const good = "the password of alice"
	if err := d.Check(ctx, "m-1", "alice", good); shoal.KindOf(err) != shoal.KindUnauthenticated || len(p.asked) != 0 {
		t.Errorf("nobody is led there: %v, %v", err, p.asked)
	}
	_, proved, leave := attend(d, "alice", "m-1", "192.0.2.1:5", now)
	for _, c := range []struct {
		machine shoal.MachineID
		user    shoal.UserName
	}{{"m-2", "alice"}, {"m-1", "bob"}, {"m-1", "nobody"}} {
		if err := d.Check(ctx, c.machine, c.user, "the password of "+string(c.user)); err == nil || len(p.asked) != 0 {
			t.Errorf("%s on %s: %v, %v", c.user, c.machine, err, p.asked)
		}
	}
	if err := d.Check(ctx, "m-1", "alice", "wrong"); err == nil || is(proved) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := d.Check(ctx, "m-1", "alice", good); err != nil || !is(proved) {
		t.Errorf("the right one: %v", err)
	}
	if !slices.Equal(p.asked, []string{"alice at 192.0.2.1:5", "alice at 192.0.2.1:5"}) {
		t.Errorf("%v", p.asked)
	}
	if got := d.Recent("192.0.2.1:99"); !slices.Equal(got, []shoal.UserName{"alice"}) {
		t.Errorf("known there: %v", got)
	}
	// That visit is in. For another one it has to be shown again.
	if err := d.Check(ctx, "m-1", "alice", good); err == nil {
		t.Error("it was looked at although nobody waits")
	}
	leave()
	// Of two, that in which something was typed.
	_, first, leaveFirst := attend(d, "alice", "m-1", "192.0.2.7:1", now.Add(time.Second))
	_, second, leaveSecond := attend(d, "alice", "m-1", "192.0.2.8:1", now)
	if err := d.Check(ctx, "m-1", "alice", good); err != nil || !is(first) || is(second) {
		t.Errorf("of two: %v, %v, %v", err, is(first), is(second))
	}
	leaveFirst()
	for range triesOfVisit {
		if err := d.Check(ctx, "m-1", "alice", "wrong"); err == nil {
			t.Error("a wrong password was taken")
		}
	}
	if err := d.Check(ctx, "m-1", "alice", good); err == nil {
		t.Error("tries have no end")
	}
	leaveSecond()
	p.users["alice"] = shoal.User{Name: "alice", Disabled: true}
	_, _, leave = attend(d, "alice", "m-1", "192.0.2.1:5", now)
	defer leave()
	if err := d.Check(ctx, "m-1", "alice", good); err == nil {
		t.Error("a disabled user got in")
	}
}

// A stranger who says her name, and whose client speaks all the time, gets neither her place nor her good name by the password that she types.
func TestPasswordsAreNotTakenForAStrangers(t *testing.T) {
	const good = "the password of alice"
	for _, c := range []struct {
		what         string
		known        bool // she has signed in from there before
		stranger     bool // there is one
		proved, kept bool // she is let in for certain; it is kept that she has signed in from there
	}{
		{"alone", false, false, true, true},
		{"from a known address", true, true, true, true},
		{"from an unknown one", false, true, false, false},
	} {
		d, _ := newDesk(t)
		if c.known {
			d.SignedIn("alice", "192.0.2.1:4000")
		}
		now := time.Now()
		_, proved, leave := attend(d, "alice", "m-1", "192.0.2.1:4001", now)
		defer leave()
		if c.stranger {
			_, _, leave := attend(d, "alice", "m-1", "198.51.100.7:4002", now.Add(time.Second))
			defer leave()
		}
		if err := d.Check(t.Context(), "m-1", "alice", good); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.proved && !is(proved) {
			t.Errorf("%s: she is not let in", c.what)
		}
		if hers := d.Recent("192.0.2.1:4003"); (len(hers) > 0) != c.kept {
			t.Errorf("%s: known from there are %q", c.what, hers)
		}
		if others := d.Recent("198.51.100.7:4004"); len(others) > 0 {
			t.Errorf("%s: known at the stranger's address are %q", c.what, others)
		}
	}
}

func TestTicketsAreGoodOnceAndForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &people{users: map[shoal.UserName]shoal.User{"alice": {Name: "alice"}}}
		d := New(Config{People: p})
		ctx := t.Context()
		password, expires := d.Issue("alice", "lab", "192.0.2.1")
		if len(password) != 24 || time.Until(expires) != ticketLife {
			t.Errorf("%q until %v", password, expires)
		}
		if got := d.Recent("192.0.2.1:1"); !slices.Equal(got, []shoal.UserName{"alice"}) {
			t.Errorf("%v", got)
		}
		d.mu.Lock()
		if got := d.recent("192.0.2.1", "other"); len(got) != 0 {
			t.Errorf("a ticket for one pool counts in another: %v", got)
		}
		d.mu.Unlock()
		_, proved, leave := attend(d, "alice", "m-1", "192.0.2.1:5", time.Now())
		if err := d.Check(ctx, "m-1", "alice", password); err != nil || !is(proved) || len(p.asked) != 0 {
			t.Errorf("%v, %v", err, p.asked)
		}
		leave()
		_, _, leave = attend(d, "alice", "m-1", "192.0.2.1:5", time.Now())
		if err := d.Check(ctx, "m-1", "alice", password); err == nil {
			t.Error("it was good twice")
		}
		leave()

		password, _ = d.Issue("alice", "lab", "192.0.2.1")
		v, _, leave := attend(d, "alice", "m-1", "192.0.2.1:5", time.Now())
		v.Pool = "other"
		if err := d.Check(ctx, "m-1", "alice", password); err == nil {
			t.Error("it was good in another pool")
		}
		v.Pool = "lab"
		time.Sleep(ticketLife)
		if err := d.Check(ctx, "m-1", "alice", password); err == nil {
			t.Error("it was good for ever")
		}
		leave()

		var all []string
		for range ticketsOfUser + 2 {
			password, _ = d.Issue("alice", "lab", "192.0.2.1")
			all = append(all, password)
		}
		_, _, leave = attend(d, "alice", "m-1", "192.0.2.1:5", time.Now())
		defer leave()
		if err := d.Check(ctx, "m-1", "alice", all[0]); err == nil {
			t.Error("there is no end to tickets")
		}
		if err := d.Check(ctx, "m-1", "alice", all[len(all)-1]); err != nil {
			t.Error(err)
		}
	})
}

func TestSignInsAgeAndAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{})
		d.SignedIn("alice", "192.0.2.1:1")
		time.Sleep(time.Minute)
		d.SignedIn("bob", "192.0.2.1:2")
		d.SignedIn("carol", "[2001:db8:1:2:3::4]:2")
		d.SignedIn("dora", "@")
		if got := d.Recent("192.0.2.1:9"); !slices.Equal(got, []shoal.UserName{"bob", "alice"}) {
			t.Errorf("%v", got)
		}
		if got := d.Recent("[2001:db8:1:2:ff::1]:2"); !slices.Equal(got, []shoal.UserName{"carol"}) {
			t.Errorf("of the same site: %v", got)
		}
		if got := d.Recent("@"); len(got) != 0 {
			t.Errorf("by a socket: %v", got)
		}
		time.Sleep(signInLife - time.Minute)
		if got := d.Recent("192.0.2.1:9"); !slices.Equal(got, []shoal.UserName{"bob"}) {
			t.Errorf("later: %v", got)
		}
	})
}

func TestSignInsSurviveARestart(t *testing.T) {
	t.Parallel()
	d, _ := newDesk(t)
	d.SignedIn("alice", "192.0.2.1:1")
	if err := d.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := New(Config{Store: d.cfg.Store})
	if err := again.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := again.Recent("192.0.2.1:9"); !slices.Equal(got, []shoal.UserName{"alice"}) {
		t.Errorf("%v", got)
	}
	err := d.cfg.Store.Update(t.Context(), func(tx *store.Tx) error { return tx.SetSetting(setting, "{") })
	if err != nil {
		t.Fatal(err)
	}
	if err := again.load(t.Context()); err != nil {
		t.Errorf("what cannot be read is in the way: %v", err)
	}
}

func TestTicket(t *testing.T) {
	t.Parallel()
	d, _ := newDesk(t)
	desktop := []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389}}
	err := d.cfg.Store.Update(t.Context(), func(tx *store.Tx) error {
		for _, p := range []shoal.Pool{{Name: "lab", Provider: "local", Endpoints: desktop, Size: shoal.Size{Max: 1}}, {Name: "plain", Provider: "local", Default: true}} {
			if _, err := tx.Pools().Put(p); err != nil {
				return err
			}
		}
		_, err := tx.Users().Put(shoal.User{Name: "alice", UID: 20001})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	alice := access.Subject{User: "alice", Role: shoal.RoleMember}
	got, err := d.Ticket(t.Context(), alice, api.DesktopRequest{}, "192.0.2.1:99")
	if err != nil || got.Pool != "lab" || got.Endpoint != "desktop" || got.From != "192.0.2.1" || got.Address != "127.0.0.1:3389" || got.Password == "" || got.User != "alice" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := d.Ticket(t.Context(), alice, api.DesktopRequest{From: "2001:db8::1"}, "local"); err != nil || got.From != "2001:db8::1" {
		t.Errorf("%+v, %v", got, err)
	}
	machine, browser, host := alice, alice, access.Subject{Host: true}
	machine.Machine, browser.Browser = "m-1", true
	for what, c := range map[string]struct {
		by   access.Subject
		req  api.DesktopRequest
		kind shoal.Kind
	}{
		"through a machine":        {machine, api.DesktopRequest{}, shoal.KindDenied},
		"in a browser":             {browser, api.DesktopRequest{}, shoal.KindDenied},
		"the host":                 {host, api.DesktopRequest{}, shoal.KindDenied},
		"nobody":                   {access.Subject{}, api.DesktopRequest{}, shoal.KindDenied},
		"not there":                {access.Subject{User: "carol"}, api.DesktopRequest{}, shoal.KindDenied},
		"a pool without":           {alice, api.DesktopRequest{Pool: "plain"}, shoal.KindNotFound},
		"no such pool":             {alice, api.DesktopRequest{Pool: "x"}, shoal.KindNotFound},
		"no such endpoint":         {alice, api.DesktopRequest{Endpoint: "x"}, shoal.KindNotFound},
		"an address that is none":  {alice, api.DesktopRequest{From: "here"}, shoal.KindInvalid},
		"an address with a prefix": {alice, api.DesktopRequest{From: "10.0.0.0/8"}, shoal.KindInvalid},
	} {
		if _, err := d.Ticket(t.Context(), c.by, c.req, "192.0.2.1:99"); shoal.KindOf(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
	}
	if strings.Contains(got.Password, " ") {
		t.Errorf("%q", got.Password)
	}
	// Another process has the port.
	tickets := len(d.tickets)
	d.cfg.Address = func(shoal.PoolName, string) (string, string) {
		return "", "port 3389 of the gateway cannot be had: in use"
	}
	got, err = d.Ticket(t.Context(), alice, api.DesktopRequest{}, "192.0.2.1:99")
	if shoal.KindOf(err) != shoal.KindConflict || !strings.Contains(err.Error(), "port 3389 of the gateway cannot be had: in use") || got.Password != "" || got.Address != "" || len(d.tickets) != tickets {
		t.Errorf("a port that somebody else has: %+v, %v", got, err)
	}
}

// A pool that has no machine and may have none says so: a client of RDP could not.
func TestTicketOfAPoolWithoutMachines(t *testing.T) {
	t.Parallel()
	d, _ := newDesk(t)
	desktop := []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389}}
	err := d.cfg.Store.Update(t.Context(), func(tx *store.Tx) error {
		for _, p := range []shoal.Pool{{Name: "none", Endpoints: desktop}, {Name: "asleep", Endpoints: desktop, Size: shoal.Size{Max: 1}, Fixed: &shoal.FixedSize{}},
			{Name: "last", Endpoints: desktop}} {
			if _, err := tx.Pools().Put(p); err != nil {
				return err
			}
		}
		if _, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "last", State: shoal.MachineReady, Wanted: shoal.WantRun}); err != nil {
			return err
		}
		_, err := tx.Users().Put(shoal.User{Name: "alice", UID: 20001})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for pool, want := range map[shoal.PoolName]string{"none": "its size.max is 0", "asleep": "scaled it to 0", "last": ""} {
		got, err := d.Ticket(t.Context(), access.Subject{User: "alice", Role: shoal.RoleMember}, api.DesktopRequest{Pool: pool}, "192.0.2.1:99")
		if want == "" && err != nil || want != "" && (shoal.KindOf(err) != shoal.KindConflict || !strings.Contains(err.Error(), want) || got.Password != "") {
			t.Errorf("%s: %+v, %v", pool, got, err)
		}
	}
}

func TestAPoolsDesktopsAreKnownByOneCertificate(t *testing.T) {
	t.Parallel()
	d, _ := newDesk(t)
	cert, key, err := d.Identity("lab")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pair.Certificate[0])
	got, err := d.Fingerprint("lab")
	if err != nil || strings.ReplaceAll(got, ":", "") != hex.EncodeToString(sum[:]) || len(got) != 95 {
		t.Errorf("%s, %v", got, err)
	}
	if again, _, err := New(d.cfg).Identity("lab"); err != nil || again != cert {
		t.Errorf("after a restart: %v", err)
	}
	if other, _, err := d.Identity("other"); err != nil || other == cert {
		t.Errorf("another pool: %v", err)
	}
	file := filepath.Join(d.cfg.Dir, "lab.pem")
	for path, want := range map[string]os.FileMode{d.cfg.Dir: 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, name := range []shoal.PoolName{"", "..", "../x", ".x", "a/b"} {
		if _, _, err := d.Identity(name); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := os.WriteFile(file, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if anew, _, err := d.Identity("lab"); err != nil || anew == cert {
		t.Errorf("a broken file: %v", err)
	}
}

func TestProve(t *testing.T) {
	t.Parallel()
	d, _ := newDesk(t)
	pairOf := func(pool shoal.PoolName) tls.Certificate {
		cert, key, err := d.Identity(pool)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	// Somebody who shows the pool's certificate without having its key.
	thief := pairOf("other")
	thief.Certificate = pairOf("lab").Certificate
	confirmed := []byte{3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 2, 1, 8, 0, 1, 0, 0, 0}
	old := slices.Clone(confirmed)
	old[15] = 0
	for _, c := range []struct {
		what    string
		answer  []byte
		pair    tls.Certificate
		good    bool
		foreign bool
	}{
		{"the pool's own", confirmed, pairOf("lab"), true, false},
		{"another pool's", confirmed, pairOf("other"), false, true},
		{"a copied certificate", confirmed, thief, false, false},
		{"without TLS", old, pairOf("lab"), false, true},
		{"a short answer", confirmed[:5], pairOf("lab"), false, false},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		front, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		machine, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		served := make(chan struct{})
		go func() {
			defer close(served)
			defer machine.Close()
			if _, err := io.ReadFull(machine, make([]byte, 19)); err != nil {
				return
			}
			if _, err := machine.Write(c.answer); err != nil || len(c.answer) < 19 {
				return
			}
			_ = tls.Server(machine, &tls.Config{Certificates: []tls.Certificate{c.pair}}).HandshakeContext(t.Context())
			_, _ = io.Copy(io.Discard, machine)
		}()
		err = d.Prove(t.Context(), front, "lab")
		if (err == nil) != c.good || errors.Is(err, ErrForeign) != c.foreign {
			t.Errorf("%s: %v", c.what, err)
		}
		front.Close()
		<-served
	}
}
