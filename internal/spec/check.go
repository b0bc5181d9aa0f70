package spec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/shares"
)

var (
	objectName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	userName   = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	jobName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	octalMode  = regexp.MustCompile(`^[0-7]{3,4}$`)
	currency   = regexp.MustCompile(`^[A-Z]{3}$`)
)

// reserved are names of accounts and groups that every machine has already.
var reserved = strings.Fields(`root daemon bin sys sync games man lp mail news uucp proxy www-data backup
	list irc gnats nobody nogroup adm tty disk dialout fax voice cdrom floppy tape sudo audio dip operator src
	shadow utmp video sasl plugdev staff users input sgx kvm render crontab ssh sshd messagebus ntp postfix
	wheel docker polkitd tss uuidd`)

// The lowest and highest uid and gid that can be written. Below lie the system's own.
const (
	minID = 1000
	maxID = shoal.LastID
)

// checks gathers what is wrong with one object.
type checks struct{ mistakes []shoal.Mistake }

func (c *checks) wrong(path, hint, format string, args ...any) {
	c.mistakes = append(c.mistakes, shoal.Mistake{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *checks) name(s, noun string) {
	if s == "" {
		c.wrong("name", "", "the %s has no name", noun)
	} else if !objectName.MatchString(s) {
		c.wrong("name", "use a-z, 0-9 and -, at most 32, beginning with a letter", "%q cannot be the name of a %s", clip(s), noun)
	}
}

// oneOf checks a word of a closed list.
func (c *checks) oneOf(path, word string, known ...string) {
	if !slices.Contains(known, word) {
		c.wrong(path, suggest(word, known), "%q is not possible here", clip(word))
	}
}

func (c *checks) within(path string, n, low, high int) {
	if n < low || n > high {
		c.wrong(path, "", "%d is not between %d and %d", n, low, high)
	}
}

// text checks a string that goes into files and command lines.
func (c *checks) text(path, s string, limit int) bool {
	if len(s) > limit {
		c.wrong(path, "", "this is longer than %d bytes", limit)
		return false
	}
	if strings.ContainsRune(s, 0) {
		c.wrong(path, "", "a zero byte cannot be used here")
		return false
	}
	return true
}

// line checks a string that stays on one line.
func (c *checks) line(path, s string, limit int) bool {
	if !c.text(path, s, limit) {
		return false
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		c.wrong(path, "", "%q holds a control character", clip(s))
		return false
	}
	return true
}

// absolute checks a path from the root on, written in its shortest form.
func (c *checks) absolute(at, p string) bool {
	if !c.line(at, p, 1024) {
		return false
	}
	switch {
	case !strings.HasPrefix(p, "/"):
		c.wrong(at, "begin it with /", "%q is not an absolute path", clip(p))
	case path.Clean(p) != p:
		c.wrong(at, "write "+path.Clean(p), "%q is not a plain path", clip(p))
	default:
		return true
	}
	return false
}

// relative checks a path below something, in which a placeholder stands for a name.
func (c *checks) relative(at, p, placeholder string) {
	if !c.line(at, p, 1024) {
		return
	}
	switch {
	case strings.HasPrefix(p, "/"):
		c.wrong(at, "write it relative to the share", "%q is an absolute path", clip(p))
	case p == "" || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../"):
		c.wrong(at, "", "%q is not a plain path below the share", clip(p))
	case strings.Count(p, placeholder) != 1:
		c.wrong(at, "for example "+path.Join(path.Dir(p), placeholder), "%q must hold %s once", clip(p), placeholder)
	case strings.ContainsAny(strings.Replace(p, placeholder, "", 1), "{}"):
		c.wrong(at, "only "+placeholder+" is filled in", "%q holds other braces than %s", clip(p), placeholder)
	}
}

// systemDirs belong to the machine itself.
var systemDirs = strings.Fields("/bin /boot /dev /etc /lib /lib32 /lib64 /libx32 /proc /root /run /sbin /sys /usr")

// below reports whether p is dir or lies in it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// system returns the system directory that p is or lies in.
func system(p string) string {
	for _, dir := range systemDirs {
		if below(p, dir) {
			return dir
		}
	}
	return ""
}

// CheckShare returns what is wrong with a share.
func CheckShare(s shoal.Share) []shoal.Mistake {
	var c checks
	c.name(string(s.Name), "share")
	if scheme, rest, remote := strings.Cut(s.Source, "://"); !remote {
		c.local(s.Source)
	} else if c.line("source", s.Source, 1024) {
		c.remote(s, scheme, rest)
	}
	if s.Credentials != nil && !objectName.MatchString(s.Credentials.Secret) {
		c.wrong("credentials.secret", "give the name of a secret, never its value", "this cannot be the name of a secret")
	}
	if _, _, remote := strings.Cut(s.Source, "://"); remote && !s.Owned() && len(s.GroupDirs) > 0 {
		c.wrong("groupDirs", "leave them out, or take a directory or NFS", "files on %s have no groups of their own", clip(s.Source))
	}
	for i, g := range s.GroupDirs {
		at := fmt.Sprintf("groupDirs[%d]", i)
		c.relative(at+".path", g.Path, "{group}")
		if !octalMode.MatchString(g.Mode) {
			c.wrong(at+".mode", `write "2770"`, "%q is not a mode", clip(g.Mode))
		} else if m, _ := strconv.ParseUint(g.Mode, 8, 16); m&0o0070 != 0o0070 {
			c.wrong(at+".mode", `write "2770"`, "with mode %s the group could not work there", g.Mode)
		}
	}
	c.labels(s.Labels)
	return c.mistakes
}

// remote checks the source of a share on a file server, and its options. An account that is still to be written, as in a file that
// was converted, is no mistake yet: whoever is to mount it says so.
func (c *checks) remote(s shoal.Share, scheme, rest string) {
	if !slices.Contains(shares.Kinds(), scheme) {
		c.wrong("source", suggest(scheme, shares.Kinds()), "%q is not a kind of share", clip(scheme))
		return
	}
	unwritten := scheme == string(shares.Azure) && unwrittenShare.MatchString(rest)
	for _, m := range shares.Check(s) {
		if strings.HasPrefix(m.Path, "options.") || m.Path == "source" && !unwritten {
			c.mistakes = append(c.mistakes, m)
		}
	}
}

// unwrittenShare is what may be the account and the share of a file that was converted: YOUR-ACCOUNT/YOUR-SHARE, <ACCOUNT>/share.
var unwrittenShare = regexp.MustCompile(`^<?[A-Za-z0-9_-]{1,63}>?/<?[A-Za-z0-9_-]{1,63}>?(/[^ ,?#@]*)?$`)

// local checks the source of a share that is a directory of the host.
func (c *checks) local(s string) {
	if s == "" {
		c.wrong("source", "write a directory such as /srv/team, or nfs://host/path", "the share has no source")
		return
	}
	if !c.line("source", s, 1024) {
		return
	}
	if !c.absolute("source", s) {
		return
	}
	if dir := system(s); dir != "" || s == "/" {
		c.wrong("source", "choose a directory of its own, such as /srv/team", "%s belongs to the system and cannot be shared", s)
	}
}

// account checks a name that becomes one of an account or group of Linux.
func (c *checks) account(name, noun string) {
	switch {
	case name == "":
		c.wrong("name", "", "the %s has no name", noun)
	case !userName.MatchString(name):
		c.wrong("name", "use a-z, 0-9, _ and -, at most 32, beginning with a letter or _", "%q cannot be the name of a %s", clip(name), noun)
	case slices.Contains(reserved, name), strings.HasPrefix(name, "systemd-"), strings.HasPrefix(name, "shoal"),
		strings.HasPrefix(name, "m-"), name == "_apt":
		c.wrong("name", "choose another", "the name %q is reserved", name)
	}
}

// CheckUser returns what is wrong with a user. Whether the keys are keys is for others to say.
func CheckUser(u shoal.User) []shoal.Mistake {
	var c checks
	c.account(string(u.Name), "user")
	if u.UID != 0 {
		c.within("uid", u.UID, minID, maxID)
	}
	for i, k := range u.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		if strings.TrimSpace(k) == "" {
			c.wrong(at, "give the line of a .pub file", "the key is empty")
		} else {
			c.line(at, k, 16<<10)
		}
		if slices.Index(u.Keys, k) != i {
			c.wrong(at, "", "the same key is there twice")
		}
	}
	for i, g := range u.Groups {
		at := fmt.Sprintf("groups[%d]", i)
		if !userName.MatchString(string(g)) {
			c.wrong(at, "", "%q cannot be the name of a group", clip(string(g)))
		}
		if slices.Index(u.Groups, g) != i {
			c.wrong(at, "", "group %q is there twice", g)
		}
	}
	c.oneOf("role", string(u.Role), string(shoal.RoleMember), string(shoal.RoleOperator), string(shoal.RoleAdmin))
	if c.absolute("shell", u.Shell) && strings.ContainsAny(u.Shell, ": ") {
		c.wrong("shell", "", "%q cannot be a shell", clip(u.Shell))
	}
	c.budget(u.Budget)
	return c.mistakes
}

// CheckGroup returns what is wrong with a group.
func CheckGroup(g shoal.Group) []shoal.Mistake {
	var c checks
	c.account(string(g.Name), "group")
	if g.GID != 0 {
		c.within("gid", g.GID, minID, maxID)
	}
	if !finite(g.Weight) || g.Weight < 0 || g.Weight > 1e6 {
		c.wrong("weight", "", "%v is not between 0 and 1000000", g.Weight)
	}
	for i, m := range g.Members {
		at := fmt.Sprintf("members[%d]", i)
		if !userName.MatchString(string(m)) {
			c.wrong(at, "", "%q cannot be the name of a user", clip(string(m)))
		}
		if slices.Index(g.Members, m) != i {
			c.wrong(at, "", "user %q is there twice", m)
		}
	}
	c.budget(g.Budget)
	return c.mistakes
}

// IsName reports whether an object other than a user can have a name.
func IsName(s string) bool { return objectName.MatchString(s) }
