package spec_test

import (
	"errors"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// What a server says about an object is found where the object was written.
func TestLocate(t *testing.T) {
	t.Parallel()
	file := spec.File{Name: "team.yaml", Data: []byte("kind: Group\nname: research\n---\nkind: User\nname: alice\nkeys: [a, b]\ngroups: [none]\n")}
	for _, c := range []struct{ path, want string }{
		{"user alice: keys[1]", "team.yaml:6:11: user alice: keys[1]: no\n"},
		{"user alice: shell", "team.yaml:4:1: user alice: shell: no\n"}, // not written: the document
		{"user alice", "team.yaml:4:1: user alice: no\n"},
		{"user bob: keys[0]", "user bob: keys[0]: no\n"},
		{"", "no\n"},
	} {
		err := spec.Locate(spec.Invalid([]shoal.Mistake{{Path: c.path, Msg: "no"}}), file)
		if got := spec.Format(shoal.MistakesOf(err)); got != c.want || shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
	if err := errors.New("x"); spec.Locate(err, file) != err {
		t.Error("another error came back changed")
	}
}
