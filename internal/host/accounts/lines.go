package accounts

import (
	"bytes"
	"strconv"
	"strings"
)

// systemBelow is the number from which on accounts are people: Debian and most others give those
// below to software.
const systemBelow = 1000

// nobody is the number that stands for no one, in all distributions.
const nobody = 65534

// line is one line of a file of accounts. What cannot be read is kept as it is.
type line struct {
	raw  string
	name string // empty: not readable
	id   int    // uid of passwd, gid of group, -1 elsewhere
}

// parse reads a file whose lines have a number of fields, the id being in the field idField (-1: none).
func parse(text []byte, fields, idField int) []line {
	var out []line
	for raw := range bytes.SplitSeq(text, []byte("\n")) {
		if len(raw) == 0 {
			continue
		}
		l := line{raw: string(raw), id: -1}
		f := strings.Split(l.raw, ":")
		if len(f) != fields || !plainName(f[0]) {
			out = append(out, l)
			continue
		}
		if idField >= 0 {
			id, err := strconv.ParseUint(f[idField], 10, 31)
			if err != nil {
				out = append(out, l)
				continue
			}
			l.id = int(id)
		}
		l.name = f[0]
		out = append(out, l)
	}
	return out
}

// plainName reports whether a name can stand in a file of accounts and in a path.
func plainName(s string) bool {
	if s == "" || len(s) > 255 || s == "." || s == ".." || s[0] == '-' || s[0] == '+' || s[0] == '#' {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == ':' || c == ',' || c == '/' || c == 0x7f {
			return false
		}
	}
	return true
}

// plainField reports whether a text can be a field: a home or a shell.
func plainField(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c == ':' || c == 0x7f {
			return false
		}
	}
	return true
}

// join puts lines together again.
func join(lines []line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l.raw)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// User is a line of passwd.
type User struct {
	Name        string
	UID, GID    int
	Home, Shell string
}

// FindUser looks a user up by name in the text of a passwd file. It is for those who start anew for
// each question and must be quick.
func FindUser(passwd []byte, name string) (User, bool) {
	if !plainName(name) {
		return User{}, false
	}
	for raw := range bytes.SplitSeq(passwd, []byte("\n")) {
		rest, ok := bytes.CutPrefix(raw, []byte(name+":"))
		if !ok {
			continue
		}
		f := strings.Split(string(rest), ":")
		if len(f) != 6 {
			continue
		}
		uid, err1 := strconv.ParseUint(f[1], 10, 31)
		gid, err2 := strconv.ParseUint(f[2], 10, 31)
		if err1 != nil || err2 != nil {
			continue
		}
		return User{Name: name, UID: int(uid), GID: int(gid), Home: f[4], Shell: f[5]}, true
	}
	return User{}, false
}

// FindGroup looks a group's number up by name in the text of a group file.
func FindGroup(group []byte, name string) (gid int, ok bool) {
	for _, l := range parse(group, 4, 2) {
		if l.name == name && name != "" {
			return l.id, true
		}
	}
	return 0, false
}
