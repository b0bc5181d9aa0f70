package program

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

func at(s int) time.Time { return time.Unix(1e9+int64(s), 0) }

func list(ids ...shoal.MachineID) (all []provider.Observed) {
	for _, id := range ids {
		all = append(all, provider.Observed{ID: id, Pool: "lab", ProviderID: "i-" + string(id), Phase: provider.PhaseRunning})
	}
	return all
}

// Half a list that claims to be whole does not end the other half: not at once, and not while any list shows it.
func TestHalfAList(t *testing.T) {
	s := sightings{grace: time.Minute, log: slog.New(slog.DiscardHandler)}
	shows := func(sec int, complete bool, in []provider.Observed, want string) {
		t.Helper()
		all, _ := s.merge(in, complete, at(sec))
		var got []string
		for _, o := range all {
			mark := ""
			if o.Trouble != "" {
				mark = "!"
			}
			got = append(got, string(o.ID)+mark)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("at %d s it shows %q, want %q", sec, got, want)
		}
	}
	shows(0, true, list("a", "b", "c"), "a b c")
	shows(10, true, list("a"), "a b! c!")
	shows(69, true, list("a"), "a b! c!")
	shows(70, true, list("a", "b"), "a b") // c was missing for a minute
	shows(75, true, list("a"), "a b!")
	shows(134, true, list("a"), "a b!")
	shows(140, true, list("a", "c"), "a c") // and came back
	shows(141, false, nil, "")              // says nothing
	shows(142, true, list("a", "c"), "a c")
	s.doom("c")
	shows(143, true, list("a", "c"), "a c")
	shows(144, true, list("a"), "a") // that was asked for
	s.accepted(provider.MachineSpec{ID: "d", Pool: "lab"}, at(150))
	shows(149, true, list("a"), "a") // asked for before it was accepted
	shows(151, true, list("a"), "a d")
	shows(212, true, list("a"), "a") // promised, and never seen
	s.accepted(provider.MachineSpec{ID: "e", Pool: "lab"}, at(220))
	shows(221, true, list("a", "e"), "a e")
	renamed := list("a", "e")
	renamed[0].ProviderID = "i-other"
	shows(222, true, renamed, "a! e")
	shows(223, true, list("a", "e"), "a e")
	s.doom("e")
	s.accepted(provider.MachineSpec{ID: "e", Pool: "lab"}, at(230)) // made anew
	shows(231, true, list("a"), "a e")
}

// The machines of others are not seen, so that they are never taken for strangers to be removed.
func TestOtherInstallations(t *testing.T) {
	seen, err := judge([]wire.Observed{
		{ID: "m-1", Installation: "here", Pool: "lab", ProviderID: "a", Phase: provider.PhaseRunning, Address: "10.0.0.1:22", Reason: "fine\x1b[2J\nreally"},
		{ID: "m-2", Installation: "there", Pool: "lab", ProviderID: "b", Phase: provider.PhaseRunning},
		{ID: "../..", Pool: "lab"}}, "here")
	if err != nil || len(seen) != 1 || seen[0].ID != "m-1" || seen[0].Reason != "fine [2J really" {
		t.Errorf("it sees %+v, %v", seen, err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"complete":true,"machines":[{"id":"m-1","installation":"here","pool":"lab","providerId":"a","phase":"running","address":"[::1]:22"}]}`))
	f.Add([]byte(`{"error":{"code":"quota","message":"x","until":"2030-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"description":{"protocol":1,"mode":"once","capabilities":{"mounts":"agent"},"settings":{"type":"object"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parse(text)
		if err != nil {
			return
		}
		seen, err := judge(a.Machines, "here")
		ids := map[shoal.MachineID]bool{}
		for _, o := range seen {
			if err != nil || ids[o.ID] || !machineID.MatchString(string(o.ID)) {
				t.Errorf("%+v, %v", o, err)
			}
			ids[o.ID] = true
		}
		_, _ = vet(a.Description)
		if a.Error != nil {
			if said := refusal(*a.Error, a.Error.Code).Error(); strings.ContainsAny(said, "\x1b\n\r") {
				t.Errorf("%q", said)
			}
		}
	})
}

// What others could replace is not run as root.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	write := func(mode os.FileMode, elem ...string) string {
		t.Helper()
		path := filepath.Join(append([]string{dir}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write(0o755, "good")
	link := filepath.Join(dir, "link")
	open := write(0o755, "open", "provider")
	foreign := write(0o755, "foreign")
	for _, err := range []error{os.Symlink(good, link), os.Chmod(filepath.Dir(open), 0o777), os.Symlink(open, filepath.Join(dir, "astray"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		good: "", link: "",
		"provider":                   "not absolute",
		dir + "/./good":              "not absolute",
		filepath.Join(dir, "none"):   "no such file",
		dir:                          "not an executable file",
		write(0o644, "text"):         "not an executable file",
		write(0o775, "group"):        "others may write to",
		open:                         "others may write to " + filepath.Dir(open),
		filepath.Join(dir, "astray"): "others may write to " + filepath.Dir(open),
	} {
		if err := Trust(path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := Trust(foreign); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
			t.Errorf("another's: %v", err)
		}
	}
	p, err := New(t.Context(), Config{Path: open, Dir: t.TempDir(), Installation: "here"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("it was run: %v", err)
	}
}
