package shares

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// value is what an option may be.
type value struct {
	flag     bool     // it has none
	words    []string // or one of these
	min, max int      // or a number in between
	octal    bool     // or a mode
	text     func(string) bool
	form     string // what text takes, for people
}

func number(low, high int) value { return value{min: low, max: high} }
func words(list ...string) value { return value{words: list} }
func flag() value                { return value{flag: true} }
func mode() value                { return value{octal: true} }
func number31() value            { return number(0, 1<<31-2) }
func plain(form string) value    { return value{text: isWord, form: form} }
func yes() map[string]value {
	return map[string]value{"ro": flag(), "noatime": flag(), "noexec": flag()}
}
func with(a, b map[string]value) map[string]value {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// known are the options of a kind. Names and meanings are those of nfs(5), mount.cifs(8) and sshfs(1). What could
// weaken a machine (suid, dev), hold a secret or name a file of the host is not among them.
func known(k Kind) map[string]value {
	switch k {
	case NFS:
		return with(yes(), map[string]value{"vers": words("3", "4", "4.0", "4.1", "4.2"), "proto": words("tcp", "tcp6"),
			"hard": flag(), "soft": flag(), "softerr": flag(), "timeo": number(1, 6000), "retrans": number(0, 100),
			"rsize": number(4096, 1<<20), "wsize": number(4096, 1<<20), "actimeo": number(0, 3600), "acregmin": number(0, 3600), "acregmax": number(0, 3600),
			"acdirmin": number(0, 3600), "acdirmax": number(0, 3600), "noac": flag(), "nocto": flag(), "nconnect": number(1, 16),
			"lookupcache": words("all", "none", "pos", "positive"), "nolock": flag(), "noresvport": flag(), "sec": words("sys")})
	case SMB:
		return smb()
	case Azure:
		return with(smb(), map[string]value{"host": {text: func(s string) bool { _, m := hostPort(s); return m.Msg == "" }, form: "a host"},
			"vers": words("3.0", "3.02", "3.1.1")})
	case SFTP:
		return with(yes(), map[string]value{"uid": number31(), "gid": number31(), "umask": mode(),
			"hostkey": {text: isHostKey, form: "the server's public key: ssh-ed25519 AAAA…"}, "compression": words("yes", "no"), "cache": words("yes", "no"), "max_conns": number(1, 16)})
	}
	return nil
}

func smb() map[string]value {
	return with(yes(), map[string]value{"vers": words("2.1", "3", "3.0", "3.02", "3.1.1"), "seal": flag(), "mfsymlinks": flag(), "nobrl": flag(),
		"serverino": flag(), "noserverino": flag(), "uid": number31(), "gid": number31(), "file_mode": mode(), "dir_mode": mode(),
		"cache": words("strict", "none", "loose"), "actimeo": number(0, 3600), "rsize": number(4096, 8<<20), "wsize": number(4096, 8<<20),
		"domain": plain("a domain"), "soft": flag(), "hard": flag(), "echo_interval": number(1, 600), "nosharesock": flag(), "noperm": flag()})
}

// isHostKey reports whether a text is a public key of a server, as in its ssh_host_*_key.pub.
func isHostKey(s string) bool {
	f := strings.Fields(s)
	return len(f) >= 2 && len(s) < 2048 && !control(s) && !strings.Contains(s, ",") && isWord(strings.ReplaceAll(f[0], "@", "")) &&
		len(f[1]) > 20 && strings.Trim(f[1], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == ""
}

// checkOption says what is wrong with one option.
func checkOption(k Kind, name, text string) shoal.Mistake {
	all := known(k)
	v, ok := all[name]
	switch {
	case k == Directory:
		return mistake("leave options out", "a directory of the host has no option %q", clip(name))
	case k == Claim:
		return mistake("leave options out: those of the claim's volume count", "a claim has no option %q", clip(name))
	case slices.Contains([]string{"username", "user", "password", "pass", "password2", "credentials", "cred", "IdentityFile"}, name):
		return mistake("keep it with `shoal secret set`, and write credentials: {secret: NAME}", "the option %q would hold a secret, or name a file that does", name)
	case !ok:
		names := make([]string, 0, len(all))
		for n := range all {
			names = append(names, n)
		}
		slices.Sort(names)
		return mistake("these can be set: "+strings.Join(names, ", "), "a share of kind %s has no option %q", k, clip(name))
	case !v.takes(text):
		return mistake(v.hint(), "%q cannot be the option %s", clip(text), name)
	}
	return shoal.Mistake{}
}

func (v value) takes(s string) bool {
	switch {
	case v.flag:
		return s == ""
	case v.words != nil:
		return slices.Contains(v.words, s)
	case v.octal:
		n, err := strconv.ParseUint(s, 8, 16)
		return err == nil && n <= 0o777
	case v.text != nil:
		return v.text(s)
	}
	n, err := strconv.Atoi(s)
	return err == nil && strconv.Itoa(n) == s && n >= v.min && n <= v.max
}

func (v value) hint() string {
	switch {
	case v.flag:
		return `it takes no value: write ""`
	case v.words != nil:
		return "write " + strings.Join(v.words, ", ")
	case v.octal:
		return "write a mode such as 0770"
	case v.text != nil:
		return "write " + v.form
	}
	return "write a number from " + strconv.Itoa(v.min) + " to " + strconv.Itoa(v.max)
}
