package spec_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

func TestSettings(t *testing.T) {
	got, err := spec.Settings(spec.File{Name: "c.yaml", Data: []byte("# ours\nlisten: 127.0.0.1:1\nprovider: [a, b]\nlinger: 1h\n")})
	want := []spec.Setting{{"listen", []string{"127.0.0.1:1"}, 2, 9}, {"provider", []string{"a", "b"}, 3, 11}, {"linger", []string{"1h"}, 4, 9}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := spec.Settings(spec.File{Name: "c.yaml", Data: []byte("# nothing\n")}); err != nil || len(got) > 0 {
		t.Errorf("an empty file: %v, %v", got, err)
	}
	for text, wrong := range map[string]string{
		"- a\n":             "c.yaml:1:",
		"a: 1\n---\nb: 2\n": "one mapping",
		"a: {b: 1}\n":       "c.yaml:1:",
		"a:\n":              "a value is wanted",
		"a: 1\na: 2\n":      "c.yaml:2:1: key \"a\" is there twice",
		"a: [1, [2]]\n":     "not a list",
		"a: 1\n\tb: 2\n":    "c.yaml:2",
		"a: \xff\n":         "UTF-8",
		"a: !x 1\n":         "tags",
	} {
		if _, err := spec.Settings(spec.File{Name: "c.yaml", Data: []byte(text)}); err == nil || !strings.Contains(spec.Format(shoal.MistakesOf(err)), wrong) {
			t.Errorf("%q: %v, want %s", text, spec.Format(shoal.MistakesOf(err)), wrong)
		}
	}
}
