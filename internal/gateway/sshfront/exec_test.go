package sshfront

import (
	"strings"
	"testing"
)

func TestExec(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	got := w.run(w.ssh("alice@127.0.0.1", "id -un; echo oops >&2; exit 7"), nil)
	if got.out != "alice\n" || !strings.Contains(got.err, "oops") || got.code != 7 {
		t.Fatalf("%+v\n%s", got, w.log.String())
	}
}
