package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
)

// Each with a page reads what she, or everybody, was told last; nobody else can.
func TestNotices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files of others need root")
	}
	n := notices(filepath.Join(t.TempDir(), "notices"))
	name := func(uid int) (shoal.UserName, bool) {
		who, ok := map[int]shoal.UserName{28601: "alice", 28602: "bob"}[uid]
		return who, ok
	}
	if err := n.post(name, "", "nobody has a page yet"); err != nil {
		t.Fatal(err)
	}
	for uid := 28601; uid <= 28603; uid++ {
		if err := n.open(uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	said := func(uid string) string {
		b, err := os.ReadFile(filepath.Join(string(n), uid))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := n.post(name, "alice", "<b>1</b>"); err != nil || !strings.Contains(said("28601"), `"text":"\u003cb\u003e1`) || said("28602") != "{}" {
		t.Errorf("%v: %s and %s", err, said("28601"), said("28602"))
	}
	if err := n.open(28601, 28601); err != nil || said("28601") == "{}" {
		t.Errorf("a second page: %v, %s", err, said("28601"))
	}
	if err := n.post(name, "", "all"); err != nil || !strings.Contains(said("28601"), "all") || !strings.Contains(said("28602"), "all") || said("28603") != "{}" {
		t.Errorf("%v: %s, %s and %s", err, said("28601"), said("28602"), said("28603"))
	}
	if info, err := os.Stat(filepath.Join(string(n), "28602")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("it is %v, %v", info.Mode(), err)
	}
}
