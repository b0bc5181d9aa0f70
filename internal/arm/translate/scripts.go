package translate

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

// extensions are those that are resources of their own.
func (t *translation) extensions() {
	for _, what := range []string{scaleSetType + "/extensions", machineType + "/extensions"} {
		for _, r := range t.of(what) {
			owner := tree.Fold(r.ID[:max(strings.LastIndex(tree.Fold(r.ID), "/extensions/"), 0)])
			i := slices.IndexFunc(t.pools, func(p *pool) bool { return slices.Contains(p.ids, owner) })
			t.deal(r)
			if i < 0 {
				t.note(r.At, "extension %s: it belongs to no machine of the template, and is left out", tree.Clip(r.Name, 60))
				continue
			}
			p := t.pools[i]
			if len(p.ids) > 1 && owner != p.ids[0] {
				if !t.forFirst(r, p) {
					t.note(r.At, "extension %s: it is for one machine of pool %q, whose machines are all the same: it is left out", tree.Clip(r.Name, 60), p.Name)
				}
				continue
			}
			t.extension(p, naming.Last(r.Name), r.Body.Get("properties"), r.At)
		}
	}
}

// forFirst reports whether an extension is there for the pool's first machine, too, from the same place of the template: then it is
// the same for each copy.
func (t *translation) forFirst(r *arm.Resource, p *pool) bool {
	return slices.ContainsFunc(t.of(kind(r)), func(o *arm.Resource) bool {
		return o.At == r.At && strings.HasPrefix(tree.Fold(o.ID), p.ids[0]+"/")
	})
}

// extension reads one: scripts that mount a share become the share, other scripts the pool's setup.
func (t *translation) extension(p *pool, name string, v *tree.Value, at tree.Place) {
	word := strings.ToLower(v.Get("type").Tell())
	title := "extension " + tree.Clip(name, 60)
	if !strings.HasPrefix(word, "customscript") {
		t.note(at, "%s: %s", title, extensionSays(word))
		return
	}
	command := v.Get("protectedSettings", "commandToExecute")
	public := false
	if !command.Present() {
		command = v.Get("settings", "commandToExecute")
		public = command.Hides()
	}
	for _, settings := range []string{"protectedSettings", "settings"} {
		if s := v.Get(settings, "script"); !command.Present() && s.Present() && s.Kind != tree.Unknown {
			t.lines(p, title, decoded(s.Text()), nil, settings == "settings" && s.Hides(), s)
			return
		}
	}
	if !command.Present() {
		t.note(at, "%s: it has no commandToExecute, and does nothing", title)
		return
	}
	if command.Kind == tree.Unknown {
		if shares, more := t.mounts(command.Sketch()); len(shares) > 0 {
			for i := range shares {
				shares[i].key = "" // a deployment alone has it
			}
			t.mountAll(p, title, shares, more, command, false)
			return
		}
		t.note(command.At, "%s: its command is known only once something is deployed (%s): it is left out", title, tree.Clip(command.Sketch(), 200))
		return
	}
	if shares, more := t.mounts(command.Text()); len(shares) > 0 {
		t.mountAll(p, title, shares, more, command, public)
		return
	}
	var uris []string
	secret := command.Hides()
	for _, settings := range []string{"settings", "protectedSettings"} {
		for _, u := range v.Get(settings, "fileUris").Items() {
			if u.Kind == tree.Unknown {
				t.note(u.At, "%s: what it downloads is known only once something is deployed (%s): it is left out", title, tree.Clip(u.Sketch(), 200))
				return
			}
			uris, secret = append(uris, u.Text()), secret || u.Hides()
		}
	}
	if public {
		t.note(command.At, "%s: a secret stands in its public settings, where everybody reads it who may look at the machines: replace it", title)
	}
	t.script(p, title, command.Text(), uris, secret, command.At)
}

// script makes a setup of a script, if that is wanted.
func (t *translation) script(p *pool, title, command string, uris []string, secret bool, at tree.Place) {
	switch {
	case p.windows:
		t.note(at, "%s: a script for Windows; it is left out", title)
		return
	case secret:
		t.note(at, "%s: its command holds a secret, which a pool's setup must not: it is left out. Let the script read the secret from a share", title)
		return
	case !t.options.AllowScripts:
		t.note(at, "%s: it runs a script of the template's as root, and is left out; with --allow-scripts it becomes the pool's setup", title)
		return
	}
	var lines []string
	if p.Setup != nil {
		lines = append(lines, p.Setup.Command)
	}
	lines = append(lines, "set -e", `cd "$(mktemp -d)"`)
	for _, u := range uris {
		lines = append(lines, "curl -fsSL -O "+quoted(u))
	}
	if strings.HasPrefix(command, "#!") {
		lines = append(lines, "cat > script <<'END-OF-SCRIPT'", strings.TrimRight(strings.ReplaceAll(command, "\r", ""), "\n"), "END-OF-SCRIPT", "chmod +x script", "./script")
	} else {
		lines = append(lines, command)
	}
	p.Setup = &shoal.Setup{Command: strings.Join(lines, "\n")}
	p.places["setup"] = at
	t.note(at, "%s: it becomes the pool's setup, and runs as root on each new machine; what it downloads is whatever its address has by then", title)
}

// quoted is a word for the shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// mounted is a share that a script mounts.
type mounted struct {
	source  string // azurefiles://ACCOUNT/SHARE, nfs://HOST/PATH, smb://HOST/SHARE
	account string
	share   string
	key     string
	path    string
	links   bool // it links the share into the home of a user
	more    bool // the command does something else too
}

// mounts finds what a script mounts, command by command, and whether it does something else too.
func (t *translation) mounts(script string) (shares []mounted, more bool) {
	for _, c := range simple(script) {
		words := split(c)
		if len(words) > 0 && words[0] == "sudo" {
			words = words[1:]
		}
		if len(words) > 2 && words[len(words)-2] == "-c" && !doesMore(words[:len(words)-1]) {
			inner, also := t.mounts(words[len(words)-1])
			shares, more = append(shares, inner...), more || also
			continue
		}
		m, ok := mountIn(words)
		switch {
		case ok && t.tellable(m):
			shares, more = append(shares, m), more || m.more
		case len(words) > 0 && words[0] != "mkdir" && words[0] != "set":
			more = true
		}
	}
	return shares, more
}

// simple takes a script apart where, in no quotes, a line or a command ends.
func simple(script string) []string {
	script = strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(script)
	var all []string
	from, quote, escaped := 0, byte(0), false
	for i := 0; i < len(script); i++ {
		c := script[i]
		switch {
		case escaped:
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '#' && strings.TrimSpace(script[from:i]) == "": // a comment may hold any quotes
			end := strings.IndexByte(script[i:], '\n')
			if end < 0 {
				return all
			}
			i += end
			from = i + 1
		case c == '&' && i > 0 && script[i-1] == '>': // 2>&1
		case c == ';' || c == '&' || c == '|' || c == '\n':
			all, from = append(all, script[from:i]), i+1
		}
	}
	return append(all, script[from:])
}

func mountIn(words []string) (mounted, bool) {
	for i, w := range words {
		switch {
		case path.Base(w) == "mountazurefiles.sh" && len(words) >= i+5:
			m := mounted{account: words[i+1], key: words[i+2], share: words[i+3], path: words[i+4], links: len(words) > i+5}
			m.source = "azurefiles://" + m.account + "/" + m.share
			m.more = doesMore(words[:i]) || len(words) > i+6
			return m, m.account != "" && m.share != ""
		case path.Base(w) == "mount" && len(words) > i+4:
			if m, ok := mountCommand(words[i+1:]); ok {
				m.more = m.more || doesMore(words[:i])
				return m, true
			}
		}
	}
	return mounted{}, false
}

var (
	shareWord = regexp.MustCompile(`^[A-Za-z0-9.-]{1,63}$`)
	pathWord  = regexp.MustCompile(`^/[A-Za-z0-9._/-]{1,255}$`)
)

// tellable reports whether what a command says about a share is that, and not a secret in another's place.
func (t *translation) tellable(m mounted) bool {
	for _, w := range []string{m.account, m.share, m.path} {
		for _, used := range t.in.Used {
			if used.Value.Secret && used.Value.Text() == w {
				return false
			}
		}
	}
	return shareWord.MatchString(m.account) && shareWord.MatchString(m.share) && pathWord.MatchString(m.path)
}

// doesMore reports whether what stands before a mount in a command is more than how to run it.
func doesMore(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		return !slices.Contains([]string{"bash", "sh", "/bin/bash", "/bin/sh", "sudo", "-c", "-x", "-e"}, w)
	})
}

// mountCommand reads: -t cifs //ACCOUNT.file.core.windows.net/SHARE PATH -o OPTIONS, and -t nfs HOST:/PATH PATH.
func mountCommand(words []string) (mounted, bool) {
	var m mounted
	kind, options := "", ""
	var plain []string
	for i := 0; i < len(words); i++ {
		switch w := words[i]; {
		case (w == "-t" || w == "-o") && i+1 < len(words):
			i++
			if w == "-t" {
				kind = words[i]
			} else {
				options = words[i]
			}
		case strings.HasPrefix(w, "-"):
		default:
			plain = append(plain, w)
		}
	}
	if len(plain) < 2 {
		return m, false
	}
	m.path = plain[1]
	switch {
	case kind == "cifs" && strings.HasPrefix(plain[0], "//"):
		host, share, ok := strings.Cut(strings.Trim(plain[0], "/"), "/")
		m.account, m.share = host, naming.Last(share)
		m.source = "smb://" + host + "/" + share
		if account, azure := strings.CutSuffix(host, ".file.core.windows.net"); azure {
			m.account, m.source = account, "azurefiles://"+account+"/"+share
		}
		for _, o := range strings.Split(options, ",") {
			if v, ok := strings.CutPrefix(o, "password="); ok {
				m.key = v
			}
		}
		return m, ok && share != ""
	case strings.HasPrefix(kind, "nfs"):
		host, dir, ok := strings.Cut(plain[0], ":/")
		m.account, m.share, m.source = host, naming.Last(dir), "nfs://"+host+"/"+dir
		return m, ok && host != "" && dir != ""
	}
	return m, false
}

// split takes a command apart as a shell would, without its expansions.
func split(command string) []string {
	var words []string
	var b strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(command); i++ {
		c := command[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case c == '\\' && quote != '\'' && i+1 < len(command):
			i++
			b.WriteByte(command[i])
			inWord = true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			if inWord {
				words = append(words, b.String())
				b.Reset()
				inWord = false
			}
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, b.String())
	}
	return words
}

// named is how the map of shares names the share, where that is to be told from others.
func (m mounted) named(as shoal.ShareName) string {
	if string(as) == naming.Of(m.share, "share") {
		return m.share
	}
	return m.account + "/" + m.share
}

// mountAll makes shares of what a script mounts.
func (t *translation) mountAll(p *pool, title string, shares []mounted, more bool, command *tree.Value, public bool) {
	for i, m := range shares {
		m.more = more && i == len(shares)-1
		t.mount(p, title, m, command, public)
	}
}

// mount makes a share of what a script mounts.
func (t *translation) mount(p *pool, title string, m mounted, command *tree.Value, public bool) {
	at := command.At
	// The command is secret where its key is; what else it says is a template's to tell.
	s := shoal.Share{Source: m.source}
	source, mapped := t.options.Shares[m.account+"/"+m.share]
	if !mapped {
		source, mapped = t.options.Shares[m.share]
	}
	if mapped {
		s.Source = source
	}
	s.Name = shoal.ShareName(naming.Of(m.share, "share"))
	other := func(o shoal.Share) bool { return o.Name == s.Name && o.Source != s.Source }
	if slices.ContainsFunc(t.out.Set.Shares, other) {
		s.Name = shoal.ShareName(naming.Of(m.account+"-"+m.share, "share"))
	}
	if !mapped && !strings.HasPrefix(m.source, "nfs://") {
		s.Credentials = &shoal.SecretRef{Secret: naming.Of(string(s.Name)+"-key", "key")}
		if m.key != "" && !slices.ContainsFunc(t.out.Secrets, func(o Secret) bool { return o.Name == s.Credentials.Secret }) {
			t.out.Secrets = append(t.out.Secrets, Secret{s.Credentials.Secret, tree.StringValue(m.key).Hidden(), at})
		}
		if m.key == "" {
			t.note(at, "%s: the key of the share is not in the template; share %q takes it from secret %q", title, s.Name, s.Credentials.Secret)
		}
		if public {
			t.note(at, "%s: the key of the share stands in public settings, where everybody reads it who may look at the machines. Here it is secret %q; replace it", title, s.Credentials.Secret)
		}
	}
	p.places[fmt.Sprintf("mounts[%d]", len(p.Mounts))] = at
	p.Mounts = append(p.Mounts, shoal.Mount{Share: s.Name, Path: path.Clean("/" + m.path)})
	i := slices.IndexFunc(t.out.Set.Shares, func(o shoal.Share) bool { return o.Name == s.Name })
	switch {
	case i < 0:
		t.out.Set.Shares = append(t.out.Set.Shares, s)
	case t.out.Set.Shares[i].Source != s.Source:
		t.wrong(at, title, "say by the map of shares that both are one", "two shares would be called %q", s.Name)
	}
	if mapped {
		t.note(at, "%s: it mounts a share; that is share %q of source %s at %s, by the map of shares", title, s.Name, s.Source, path.Clean("/"+m.path))
	} else {
		t.note(at, "%s: it mounts a share; that becomes share %q of source %s at %s; --share %s=SOURCE takes another", title, s.Name, s.Source, path.Clean("/"+m.path), m.named(s.Name))
	}
	if m.more {
		t.note(at, "%s: its command does more than to mount the share; that is left out", title)
	}
	if m.links && p.Home.Share == "" {
		p.Home = shoal.Home{Layout: shoal.LayoutDSVM, Share: s.Name}
		t.note(at, "%s: it links the share into the home of one user; here every user has the links: ~/%s, and ~/notebooks/remote for what is hers alone. What else lies in a home is archived on the share, and follows her to other machines", title, s.Name)
	}
}

// extensionSays says why an extension of a type has no meaning here.
func extensionSays(word string) string {
	for _, e := range [][2]string{
		{"applicationhealth", "a machine is ready when a login through sshd has succeeded; the extension is left out"},
		{"diagnostics", "`/metrics` of the server has the pool's numbers; the extension is left out"},
		{"omsagent", "`/metrics` of the server has the pool's numbers; the extension is left out"},
		{"monitor", "`/metrics` of the server has the pool's numbers; the extension is left out"},
		{"dependencyagent", "`/metrics` of the server has the pool's numbers; the extension is left out"},
		{"managedidentity", "machines have no identity towards a cloud; the extension is left out"},
		{"attestation", "how machines start is the provider's; the extension is left out"},
		{"antimalware", "what runs on machines is the image's; the extension is left out"},
		{"aadssh", "users and keys are the directory's; the extension is left out"},
		{"vmaccess", "users and keys are the directory's; the extension is left out"},
		{"aadlogin", "users and keys are the directory's; the extension is left out"},
		{"domain", "users are the directory's; the extension is left out"},
		{"encryption", "disks are the provider's; the extension is left out"},
		{"gpudriver", "drivers come with the image or the host; the extension is left out"},
		{"dsc", "a configuration of PowerShell; it is left out"},
	} {
		if strings.Contains(word, e[0]) {
			return e[1]
		}
	}
	return fmt.Sprintf("extensions of the type %q have no meaning here; it is left out", tree.Clip(word, 60))
}
