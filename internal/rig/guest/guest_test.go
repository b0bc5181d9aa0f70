package guest

import (
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	r, err := Run(t.Context(), Config{Command: []string{"sh", "-c", `echo "$WHO: it's"; id -u; echo trouble >&2; grep -w -e nfs4 -e cifs -e fuse /proc/filesystems; exit 3`},
		Env: []string{"WHO=a 'b'"}, Timeout: 5 * time.Minute})
	t.Log(r.Console, r.Output)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 3 || !strings.HasPrefix(r.Output, "a 'b': it's\n0\ntrouble\n") {
		t.Errorf("exit status %d, %q", r.Code, r.Output)
	}
	for _, kind := range []string{"nfs4", "cifs", "fuse"} {
		if !strings.Contains(r.Output, "\t"+kind+"\n") {
			t.Errorf("the guest has no %s", kind)
		}
	}
}
