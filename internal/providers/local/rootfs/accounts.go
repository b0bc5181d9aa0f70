package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Accounts of the host that belong to its software, not to people: Debian gives those numbers below 1000,
// and nobody.
const (
	firstPerson = 1000
	nobody      = 65534
)

// accounts writes passwd, group, shadow and gshadow with the host's system accounts, none with a password.
// They keep their numbers, since the packages' files are owned by them.
func (b *builder) accounts() error {
	passwd, err := os.ReadFile(filepath.Join(b.host, "etc/passwd"))
	if err != nil {
		return err
	}
	group, err := os.ReadFile(filepath.Join(b.host, "etc/group"))
	if err != nil {
		return err
	}
	var p, s, g, gs bytes.Buffer
	names := map[string]bool{}
	for _, f := range systemEntries(passwd, 7) {
		names[f[0]] = true
		fmt.Fprintf(&p, "%s:x:%s:%s:%s:%s:%s\n", f[0], f[2], f[3], f[4], f[5], f[6])
		fmt.Fprintf(&s, "%s:*:19000:0:99999:7:::\n", f[0])
	}
	for _, f := range systemEntries(group, 4) {
		var members []string
		for m := range strings.SplitSeq(f[3], ",") {
			if names[m] {
				members = append(members, m)
			}
		}
		list := strings.Join(members, ",")
		fmt.Fprintf(&g, "%s:x:%s:%s\n", f[0], f[2], list)
		fmt.Fprintf(&gs, "%s:*::%s\n", f[0], list)
	}
	for _, f := range []writtenFile{{"etc/passwd", 0o644, p.String()}, {"etc/group", 0o644, g.String()},
		{"etc/shadow", 0o640, s.String()}, {"etc/gshadow", 0o640, gs.String()}} {
		if err := b.file(f.path, f.mode, []byte(f.text)); err != nil {
			return err
		}
	}
	shadow := groupID(group, "shadow")
	for _, name := range []string{"etc/shadow", "etc/gshadow"} {
		if err := os.Chown(filepath.Join(b.root, name), 0, shadow); err != nil {
			return err
		}
	}
	return b.owned(group)
}

// owned sets the groups and makes the files that other programs rely on: mail, and who was here.
func (b *builder) owned(group []byte) error {
	utmp := groupID(group, "utmp")
	for _, name := range []string{"var/log/wtmp", "var/log/btmp", "var/log/lastlog"} {
		mode := uint32(0o664)
		if name == "var/log/btmp" {
			mode = 0o660
		}
		if err := b.file(name, mode, nil); err != nil {
			return err
		}
		if err := os.Chown(filepath.Join(b.root, name), 0, utmp); err != nil {
			return err
		}
	}
	if err := os.Chown(filepath.Join(b.root, "var/mail"), 0, groupID(group, "mail")); err != nil {
		return err
	}
	return b.dir("var/mail", 0o2775)
}

// systemEntries are the lines of passwd or group that belong to the system, split into fields.
func systemEntries(file []byte, fields int) [][]string {
	var out [][]string
	scan := bufio.NewScanner(bytes.NewReader(file))
	for scan.Scan() {
		f := strings.Split(scan.Text(), ":")
		if len(f) != fields || f[0] == "" {
			continue
		}
		id, err := strconv.Atoi(f[2])
		if err == nil && (id < firstPerson || id == nobody) {
			out = append(out, f)
		}
	}
	return out
}

// groupID is a group's number, root's if there is no such group.
func groupID(file []byte, name string) int {
	for _, f := range systemEntries(file, 4) {
		if f[0] == name {
			id, _ := strconv.Atoi(f[2])
			return id
		}
	}
	return 0
}
