package accounts

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

const (
	imagePasswd = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n" +
		"ubuntu:x:1000:1000::/home/ubuntu:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n+@netgroup\n"
	imageGroup   = "root:x:0:\nvideo:x:44:ubuntu\nubuntu:x:1000:\nnogroup:x:65534:\n"
	imageShadow  = "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nubuntu:!:19000:0:99999:7:::\n"
	imageGshadow = "root:*::\nvideo:*::ubuntu\nubuntu:!::\n"
)

func image() files {
	return files{passwd: []byte(imagePasswd), group: []byte(imageGroup), shadow: []byte(imageShadow), gshadow: []byte(imageGshadow)}
}

func account(name string, uid int) api.Account {
	return api.Account{Name: shoal.UserName(name), UID: uid, GID: uid, Home: "/home/" + name, Shell: "/bin/bash", Principal: name + "@lab"}
}

func anyShell(string) bool { return true }

func probeAccount() []System {
	return []System{{"shoal-probe", "/", "/bin/sh"}, {"sshd", "/run/sshd", "/bin/false"}}
}

func TestMerge(t *testing.T) {
	want := api.Accounts{Users: []api.Account{account("bob", 20002), account("alice", 20001)},
		Groups: []api.Group{{Name: "research", GID: 30001, Members: []shoal.UserName{"bob", "alice", "stranger", "bob"}}}}
	want.Users[0].Disabled = true
	m := merge(image(), names{}, want, probeAccount(), anyShell)
	if len(m.problems) > 0 {
		t.Error(m.problems)
	}
	for _, c := range []struct{ file, want string }{
		{string(m.passwd), imagePasswd + "shoal-probe:x:999:65534:shoal:/:/bin/sh\nalice:x:20001:20001::/home/alice:/bin/bash\nbob:x:20002:20002::/home/bob:/usr/sbin/nologin\n"},
		{string(m.group), imageGroup + "alice:x:20001:\nbob:x:20002:\nresearch:x:30001:alice,bob\n"},
		{string(m.shadow), imageShadow + "shoal-probe:*:19000::::::\nalice:*:19000:0:99999:7:::\nbob:*:19000:0:99999:7::1:\n"},
		{string(m.gshadow), imageGshadow + "alice:*::\nbob:*::\nresearch:*::alice,bob\n"},
	} {
		if c.file != c.want {
			t.Errorf("got\n%s\nwant\n%s", c.file, c.want)
		}
	}
	// They go without a trace, but for what the machine needs itself.
	gone := merge(m.files, m.mine, api.Accounts{}, probeAccount(), anyShell)
	if got := string(gone.passwd); got != imagePasswd+"shoal-probe:x:999:65534:shoal:/:/bin/sh\n" {
		t.Errorf("after they left:\n%s", got)
	}
	if string(gone.group) != imageGroup || string(gone.gshadow) != imageGshadow {
		t.Errorf("groups after they left:\n%s%s", gone.group, gone.gshadow)
	}
}

// Accounts of the image's software are never replaced; its people make room.
func TestMergeClashes(t *testing.T) {
	for _, c := range []struct {
		name     string
		users    []api.Account
		groups   []api.Group
		problems int
		has      string
		hasNot   string
	}{
		{"root", []api.Account{account("root", 20001)}, nil, 1, "root:x:0:0:", "20001"},
		{"uid 0", []api.Account{account("toor", 0)}, nil, 1, "root:x:0:0:", "toor"},
		{"uid of a service", []api.Account{account("alice", 105)}, nil, 1, "sshd:x:105:", "alice"},
		{"name of a service", []api.Account{account("daemon", 20001)}, nil, 1, "daemon:x:1:", "20001"},
		{"nobody", []api.Account{account("alice", 65534)}, nil, 1, "nobody:x:65534", "alice"},
		{"person of the image by name", []api.Account{account("ubuntu", 20001)}, nil, 0, "ubuntu:x:20001:", "1000"},
		{"person of the image by uid", []api.Account{account("alice", 1000)}, nil, 0, "alice:x:1000:", "ubuntu:x"},
		{"twice", []api.Account{account("alice", 20001), account("alice", 20002)}, nil, 1, "alice:x:20001:", "20002"},
		{"same uid", []api.Account{account("alice", 20001), account("bob", 20001)}, nil, 1, "alice:x:20001:", "bob"},
		{"line break", []api.Account{{Name: "eve", UID: 20001, GID: 20001, Home: "/home/eve\nroot2:x:0:0::/:/bin/sh", Shell: "/bin/sh"}}, nil, 1, "root:x:0:0:", "root2"},
		{"colon", []api.Account{{Name: "eve:x:0", UID: 20001, GID: 20001, Home: "/", Shell: "/bin/sh"}}, nil, 1, "root:x:0:0:", "eve"},
		{"group of the image", nil, []api.Group{{Name: "video", GID: 30001}}, 1, "video:x:44:", "30001"},
		{"group named as a user", []api.Account{account("alice", 20001)}, []api.Group{{Name: "alice", GID: 30001}}, 1, "alice:x:20001:", "30001"},
		{"group numbered as a user", []api.Account{account("alice", 20001)}, []api.Group{{Name: "all", GID: 20001}}, 1, "alice:x:20001:", "all:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := merge(image(), names{}, api.Accounts{Users: c.users, Groups: c.groups}, nil, anyShell)
			text := string(m.passwd) + string(m.group)
			if len(m.problems) != c.problems || !strings.Contains(text, c.has) || strings.Contains(text, c.hasNot) {
				t.Errorf("problems %q, files\n%s", m.problems, text)
			}
		})
	}
}

func TestShellThatIsNotThere(t *testing.T) {
	a := account("alice", 20001)
	a.Shell = "/usr/bin/fish"
	m := merge(image(), names{}, api.Accounts{Users: []api.Account{a}}, nil, func(s string) bool { return s == "/bin/sh" })
	if !strings.Contains(string(m.passwd), "alice:x:20001:20001::/home/alice:/bin/sh\n") {
		t.Errorf("%s", m.passwd)
	}
}

// Whatever was there before and whoever is wanted: lines of the image stay, no two have a name or an uid in
// common that had not before, doing it again changes nothing, and all of Shoal's can be taken away again.
func TestMergeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"alice", "bob", "root", "ubuntu", "video", "sshd", "research", "", "a:b", "x\ny", "..", "eve"})
		user := rapid.Custom(func(t *rapid.T) api.Account {
			a := account(name.Draw(t, "name"), rapid.SampledFrom([]int{0, 105, 1000, 20001, 20002, 65534, -1}).Draw(t, "uid"))
			a.Disabled = rapid.Bool().Draw(t, "disabled")
			return a
		})
		group := rapid.Custom(func(t *rapid.T) api.Group {
			g := api.Group{Name: shoal.GroupName(name.Draw(t, "group")), GID: rapid.SampledFrom([]int{0, 44, 1000, 20001, 30001}).Draw(t, "gid")}
			for _, m := range rapid.SliceOfN(name, 0, 3).Draw(t, "members") {
				g.Members = append(g.Members, shoal.UserName(m))
			}
			return g
		})
		draw := func(label string) api.Accounts {
			return api.Accounts{Users: rapid.SliceOfN(user, 0, 5).Draw(t, label+" users"), Groups: rapid.SliceOfN(group, 0, 4).Draw(t, label+" groups")}
		}
		first := merge(image(), names{}, draw("first"), probeAccount(), anyShell)
		want := draw("second")
		m := merge(first.files, first.mine, want, probeAccount(), anyShell)
		if again := merge(m.files, m.mine, want, probeAccount(), anyShell); string(join(parse(again.passwd, 7, 2))) != string(m.passwd) || string(again.group) != string(m.group) {
			t.Fatalf("doing it again changes\n%s\nto\n%s", m.passwd, again.passwd)
		}
		seenName, seenID := map[string]bool{}, map[int]bool{}
		for _, l := range parse(m.passwd, 7, 2) {
			if l.name == "" {
				continue
			}
			if seenName[l.name] || seenID[l.id] {
				t.Fatalf("%s or %d is there twice:\n%s", l.name, l.id, m.passwd)
			}
			seenName[l.name], seenID[l.id] = true, true
		}
		for _, l := range parse([]byte(imagePasswd), 7, 2) {
			if (l.id < systemBelow || l.id == nobody) && !slices.ContainsFunc(parse(m.passwd, 7, 2), func(n line) bool { return n.raw == l.raw }) {
				t.Fatalf("the image's line %q is gone:\n%s", l.raw, m.passwd)
			}
		}
		for _, l := range parse(merge(m.files, m.mine, api.Accounts{}, nil, anyShell).passwd, 7, 2) {
			if l.id >= systemBelow && l.id != nobody && l.name != "ubuntu" {
				t.Fatalf("%q stays behind", l.raw)
			}
		}
	})
}

// What cannot be read is kept, byte for byte.
func FuzzParse(f *testing.F) {
	f.Add([]byte(imagePasswd), 7, 2)
	f.Add([]byte(imageShadow), 9, -1)
	f.Add([]byte("a:b\n\n:::\n+\n-x:y:1:\x00\n"), 4, 2)
	f.Fuzz(func(t *testing.T, text []byte, fields, id int) {
		if fields < 1 || id >= fields {
			return
		}
		lines := parse(text, fields, id)
		var want []string
		for l := range strings.SplitSeq(string(text), "\n") {
			if l != "" {
				want = append(want, l)
			}
		}
		got := string(join(lines))
		if expect := strings.Join(want, "\n"); strings.TrimSuffix(got, "\n") != expect {
			t.Fatalf("%q became %q", text, got)
		}
		for _, l := range lines {
			if l.name != "" && !plainName(l.name) {
				t.Fatalf("%q is no name", l.name)
			}
		}
	})
}

// What FindUser finds is what the whole file says.
func FuzzFindUser(f *testing.F) {
	f.Add([]byte(imagePasswd), "sshd")
	f.Add([]byte("a:x:1:1:::\nab:x:2:2:::\n"), "ab")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		u, ok := FindUser(text, name)
		if !ok {
			return
		}
		if u.Name != name || u.UID < 0 || u.GID < 0 || strings.ContainsAny(u.Home+u.Shell, ":\n") {
			t.Fatalf("%q in %q is %+v", name, text, u)
		}
	})
}
