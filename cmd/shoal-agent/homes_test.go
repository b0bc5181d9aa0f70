package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// linked is a pool whose homes are local and link to the share.
func linked(rev shoal.Rev) api.Snapshot {
	s := team(rev)
	s.Mounts = []api.AgentMount{{Path: "/mnt/data", Links: true, Share: "team"}}
	for i := range s.Accounts.Users {
		s.Accounts.Users[i].Home = "/home/" + string(s.Accounts.Users[i].Name)
	}
	return s
}

// A home that lies on a machine is archived when its user leaves and when the machine ends, and is there on the next one.
func TestHomesAreCarried(t *testing.T) {
	w := newWorld(t)
	if err := os.Chmod(w.share, 0o755); err != nil {
		t.Fatal(err)
	}
	archives := filepath.Join(w.share, "notebooks/alice/.shoal-home")
	becomesLinked(t, w, archives)
	addr := w.machine("m-one", linked(3))
	w.must(addr, "alice", "mkdir -p .config && echo mine > .config/settings && echo hers >> .profile && mkfifo pipe && echo kept > notebooks/remote/kept")
	w.until("she has left and the home is archived", func() bool { _, err := os.Stat(filepath.Join(archives, "m-one.tar.zst")); return err == nil })
	alice := w.hold(addr, "alice")
	alice.answer("echo late > late; echo done")
	spec := w.in("m-one", "cat /run/shoal/agent/homes.json")
	if !strings.Contains(spec, `"/mnt/data/notebooks/bob"`) {
		t.Errorf("the roster is %s", spec)
	}
	if err := w.local.Delete(t.Context(), "m-one"); err != nil {
		t.Fatal(err)
	}
	w.until("the machine is gone", func() bool { o, err := w.local.Observe(t.Context()); return err == nil && len(o.Machines) == 0 })

	addr = w.machine("m-two", linked(3))
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("ssh", append(w.person("alice@lab"), "-tt", "-p", port, "alice@"+host)...)
	cmd.Stdin = strings.NewReader("tail -n 1 .profile; cat .config/settings early late notebooks/remote/kept; readlink team; exit\n")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, said)
	}
	out := string(said)
	for _, want := range []string{"on the disk of machine m-two", "Brought back from the archive", "hers\r\nmine\r\nearly\r\nlate\r\nkept\r\n/mnt/data\r\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("she sees %q, without %q", out, want)
		}
	}
	if got := w.must(addr, "bob", "readlink team notebooks/remote; cat /mnt/data/notebooks/alice/kept || true"); !strings.HasPrefix(got, "/mnt/data\n/mnt/data/notebooks/bob\n") || strings.Contains(got, "kept\n") {
		t.Errorf("bob has %q", got)
	}

	// So is that of a user who is disabled: she may come back.
	bob := w.hold(addr, "bob")
	bob.answer("echo his > his; echo done")
	next := linked(4).Accounts
	next.Users[1].Disabled = true
	w.control.send("m-two", api.Record{Accounts: &next})
	w.until("what he had is archived", func() bool {
		_, err := os.Stat(filepath.Join(w.share, "notebooks/bob/.shoal-home/m-two.tar.zst"))
		return err == nil
	})
}

// becomesLinked: where homes come to link to a share while people have some already, these get the links, and what is in them is
// archived though nobody touches it any more.
func becomesLinked(t *testing.T, w *world, archives string) {
	t.Helper()
	before := linked(2)
	before.Mounts[0].Links = false
	addr := w.machine("m-old", before)
	w.must(addr, "alice", "echo early > early")
	w.control.srv.Close()
	after := linked(2)
	after.Machine, after.Pool = "m-old", "lab"
	w.control.want(after)
	w.control.listen(t, filepath.Join(w.dir, "control", "agent.sock"))
	w.until("she has the links", func() bool { return w.in("m-old", "readlink /home/alice/team || true") == "/mnt/data" })
	w.must(addr, "alice", "true")
	w.until("what she had is archived", func() bool { _, err := os.Stat(filepath.Join(archives, "m-old.tar.zst")); return err == nil })
	if err := w.local.Delete(t.Context(), "m-old"); err != nil {
		t.Fatal(err)
	}
	w.until("the machine is gone", func() bool { o, err := w.local.Observe(t.Context()); return err == nil && len(o.Machines) == 0 })
}
