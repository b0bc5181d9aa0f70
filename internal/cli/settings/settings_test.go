package settings_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/settings"
	"github.com/shoal-pool/shoal/internal/spec"
)

func TestApply(t *testing.T) {
	set := func() (fs *pflag.FlagSet, listen *string, programs *[]string, hosts *bool) {
		fs = pflag.NewFlagSet("serve", pflag.ContinueOnError)
		fs.String("config", "", "")
		return fs, fs.String("listen", "", ""), fs.StringArray("provider", nil, ""), fs.Bool("hosts", false, "")
	}
	fs, listen, programs, hosts := set()
	if err := fs.Parse([]string{"--listen", "a:1"}); err != nil {
		t.Fatal(err)
	}
	file := func(text string) spec.File { return spec.File{Name: "c.yaml", Data: []byte(text)} }
	if err := settings.Apply(fs, file("listen: b:2\nprovider: [x, y]\nhosts: true\n"), "config"); err != nil {
		t.Fatal(err)
	}
	if *listen != "a:1" || !slices.Equal(*programs, []string{"x", "y"}) || !*hosts {
		t.Errorf("listen %s, provider %v, hosts %v", *listen, *programs, *hosts)
	}
	fs, _, _, _ = set()
	err := settings.Apply(fs, file("lisen: b:2\nconfig: d.yaml\nhosts: perhaps\nlisten: [a, b]\n"), "config")
	text := spec.Format(shoal.MistakesOf(err))
	for _, want := range []string{"c.yaml:1:8: lisen: there is no such setting", "did you mean listen?", "c.yaml:2:9: config: there is no", "c.yaml:3:8: hosts: ", "c.yaml:4:9: listen: this can be said once only"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\nlacks %s", text, want)
		}
	}
}
