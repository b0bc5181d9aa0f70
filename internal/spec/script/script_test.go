package script_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/spec/script"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	words, err := script.Options("#!/bin/bash\n\n#SHOAL --cpus 4 --env 'A=b c' # why\n# other\n#SHOALX --no\n#SHOAL\t--name=\"x\\\"y\"\necho\n#SHOAL --late\n", script.Marker)
	var got []string
	for _, w := range words {
		got = append(got, w.Text)
	}
	if want := []string{"--cpus", "4", "--env", "A=b c", `--name=x"y`}; err != nil || !slices.Equal(got, want) || words[4].Line != 6 {
		t.Errorf("got %v, %v", words, err)
	}
	if _, err := script.Options("#SHOAL --env 'A\n", script.Marker); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("an open quote: %v", err)
	}
}

// A script runs by its interpreter, whatever it holds.
func TestCommand(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"echo \"$0\" | grep -c script\n":                                        "1\n",
		"#!/bin/bash\n[[ x == x ]] && echo 'it'\"'\"'s' END_OF_SCRIPT $((1+1))": "it's END_OF_SCRIPT 2\n",
		"#!/bin/sh -e\r\nfalse\r\necho no\r\n":                                  "",
		"#!/usr/bin/env bash\ncat <<END\n$((2*3))\nEND\n":                       "6\n",
	} {
		command, err := script.Command(text)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command("/bin/sh", "-c", command)
		c.Env = []string{"PATH=/usr/bin:/bin", "SHOAL_SCRATCH=" + t.TempDir()}
		if out, _ := c.CombinedOutput(); string(out) != want {
			t.Errorf("%q: got %q", text, out)
		}
	}
	for _, text := range []string{strings.Repeat("x", 61<<10), "a\x00b", "#!\necho"} {
		if _, err := script.Command(text); err == nil {
			t.Errorf("%.20q is a script", text)
		}
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("#SHOAL --cpus 4 'a b' \\")
	f.Fuzz(func(t *testing.T, text string) {
		words, err := script.Options(text, script.Marker)
		for _, w := range words {
			if err != nil || w.Line < 1 {
				t.Fatalf("%v, %v", words, err)
			}
		}
	})
}
