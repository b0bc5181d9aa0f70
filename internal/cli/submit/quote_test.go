package submit

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestQuoteRoundTrip: sh takes the quoted line apart into the very arguments.
func TestQuoteRoundTrip(t *testing.T) {
	word := rapid.OneOf(rapid.StringMatching(`[ -~\n\t]{0,12}`), rapid.SampledFrom([]string{"", "if", "done", "-n", "--", "~", "*", "a=b", "$HOME", "`id`", `\`, "'", "ünï", "!", "{", "#x", "a\nb"}),
		rapid.Map(rapid.SliceOf(rapid.ByteRange(1, 255)), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		argv := rapid.SliceOfN(word, 1, 8).Draw(t, "argv")
		cmd := exec.Command("/bin/sh", "-c", "printf '%s\\0' "+Quote(argv))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("sh refuses %q: %v", Quote(argv), err)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if !slices.Equal(got, argv) {
			t.Fatalf("sh reads %q as %q, not %q", Quote(argv), got, argv)
		}
	})
}

// TestQuoteCommandWord: what would be the shell's own at the start of a line is a program's name.
func TestQuoteCommandWord(t *testing.T) {
	for _, word := range []string{"if", "while", "a=b", "!", "{", "case", "#"} {
		out, err := exec.Command("/bin/sh", "-c", Quote([]string{word, "x"})).CombinedOutput()
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 127 {
			t.Errorf("%q: %v %s", word, err, out)
		}
	}
	if got := Quote([]string{"python", "train.py", "--lr=0.1", "a b"}); got != "python train.py '--lr=0.1' 'a b'" {
		t.Errorf("got %s", got)
	}
}
