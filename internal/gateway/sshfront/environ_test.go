package sshfront

import (
	"context"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
)

// What a login is to find is in its environment, byte for byte, and what its client asks for counts more. What there is to be told
// is told with shells and commands, and not where programs speak. The connection to the machine is the login's own, and ends with it.
func TestEnviron(t *testing.T) {
	found := gateway.Environ{Vars: map[string]string{"TEST_A": "one two\n'three'", "TEST_B": "ours"}, Notes: []string{"shoal: a note", "shoal: another"}}
	var asked []string
	w := newWorld(t, func(c *Config) {
		c.Environ = func(_ context.Context, user shoal.UserName, pool shoal.PoolName) gateway.Environ {
			asked = append(asked, string(user)+" "+string(pool))
			return found
		}
	})
	m := w.newMachine("m-1")
	w.router.to(m)
	const notes = "shoal: a note\nshoal: another\n"
	for _, c := range []struct {
		args      []string
		want, err string
	}{
		{[]string{"alice@127.0.0.1", `printf %s "$TEST_A|$TEST_B"`}, found.Vars["TEST_A"] + "|ours", notes},
		{[]string{"-o", "SetEnv=TEST_B=mine", "alice@127.0.0.1", "printf %s $TEST_B"}, "mine", notes},
		{[]string{"-s", "alice@127.0.0.1", "sftp"}, "", ""},
	} {
		got := w.run(w.ssh(c.args...), strings.NewReader(""))
		if got.out != c.want || unhurried(got.err) != c.err {
			t.Errorf("%q: got %q and %q", c.args, got.out, got.err)
		}
	}
	w.until("connections to the machine end with their logins", func() bool { return m.logins() == 0 })
	if len(asked) != 3 || asked[0] != "alice lab" {
		t.Errorf("it was asked for %q", asked)
	}
}
