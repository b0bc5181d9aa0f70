package translate

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// maxScript bounds a script that is encoded in a template.
const maxScript = 1 << 20

// decoded is a text that may be base64, and compressed in that.
func decoded(text string) string {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return text
	}
	if z, err := gzip.NewReader(bytes.NewReader(raw)); err == nil {
		if plain, err := io.ReadAll(io.LimitReader(z, maxScript)); err == nil {
			raw = plain
		}
	}
	return strings.ToValidUTF8(string(raw), "?")
}

// customData is what a machine was given at its making: a script that we can run, or what cloud-init reads.
func (t *translation) customData(p *pool, v *tree.Value) {
	if !v.Present() {
		return
	}
	if v.Kind == tree.Unknown {
		t.note(v.At, "customData: it is known only once something is deployed: it is left out")
		return
	}
	text := decoded(v.Text())
	switch {
	case p.windows:
		t.note(v.At, "customData: only a script for Linux can be run here: it is left out")
	case strings.HasPrefix(text, "#cloud-config"):
		t.cloudConfig(p, text, v)
	case !strings.HasPrefix(text, "#!"):
		t.note(v.At, "customData: only a script can be run here, and this is none: it is left out")
	default:
		t.lines(p, "customData", text, nil, false, v)
	}
}

// cloudConfig takes the mounts of a configuration of cloud-init's; what else is in it is told. It reads lines, as people write
// them: a stranger's YAML can be anything.
func (t *translation) cloudConfig(p *pool, text string, v *tree.Value) {
	section, found := "", false
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, " \r\n")
		if l != "" && l[0] != ' ' && l[0] != '-' {
			section, _, _ = strings.Cut(l, ":")
			continue
		}
		item, ok := strings.CutPrefix(strings.TrimSpace(l), "- ")
		if !ok || section != "mounts" && section != "runcmd" {
			continue
		}
		var words []string
		if list, ok := strings.CutPrefix(strings.TrimSpace(item), "["); ok {
			words = listed(strings.TrimSuffix(list, "]"))
		}
		var shares []mounted
		switch {
		case section == "mounts" && len(words) > 2:
			words = slices.Concat([]string{"mount", "-t", words[2], words[0], words[1], "-o"}, append(words[3:], "")[:1])
			fallthrough
		case len(words) > 0:
			if m, ok := mountIn(words); ok && t.tellable(m) {
				shares = []mounted{m}
			}
		default:
			shares, _ = t.mounts(item)
		}
		found = found || len(shares) > 0
		t.mountAll(p, "customData", shares, false, v, false)
	}
	if found {
		t.note(v.At, "customData: of the configuration of cloud-init its mounts are taken; the rest is left out")
	} else {
		t.note(v.At, "customData: a configuration of cloud-init, which nothing reads here: it is left out. What its runcmd does can be the pool's setup")
	}
}

// listed are the items of a list in brackets.
func listed(list string) []string {
	var all []string
	quote := byte(0)
	word := []byte(nil)
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote && quote != 0:
			quote = 0
		case c == ',' && quote == 0:
			all = append(all, strings.TrimSpace(string(word)))
			word = word[:0]
		default:
			word = append(word, c)
		}
	}
	return append(all, strings.TrimSpace(string(word)))
}

// lines is for a script: of its lines that mount a share comes the share; one that does nothing of the kind may become the
// pool's setup.
func (t *translation) lines(p *pool, title, text string, uris []string, public bool, v *tree.Value) {
	shares, more := t.mounts(text)
	if len(shares) > 0 {
		t.mountAll(p, title, shares, more, v, public)
		return
	}
	t.script(p, title, text, uris, v.Hides(), v.At)
}
