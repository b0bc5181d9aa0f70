package accounts

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// files are the four files of accounts.
type files struct {
	passwd, group, shadow, gshadow []byte
}

// names are the users, with their uids, and the groups that Shoal has written.
type names struct {
	Users  map[string]int  `json:"users"`
	Groups map[string]bool `json:"groups"`
	Gone   []int           `json:"gone,omitempty"` // uids of users there were, whose processes have not ended yet
}

// System is an account that the machine itself needs. It gets a number below 1000 if the image has
// no account of that name.
type System struct {
	Name  string
	Home  string
	Shell string
}

// merged is what became of a merge.
type merged struct {
	files
	mine     names
	users    []api.Account // those with a line, disabled or not
	problems []string      // who was left out, and why
}

// lastChange is the day that shadow gives as that of the last password change. There are no passwords;
// the field must not be empty or zero, which would demand one.
const lastChange = 19000

// merge puts what is wanted into the files that are there. shell tells whether a shell exists.
func merge(old files, mine names, want api.Accounts, system []System, shell func(string) bool) merged {
	m := &merger{out: merged{mine: names{Users: map[string]int{}, Groups: map[string]bool{}}},
		users: map[string]api.Account{}, uids: map[int]string{}, groups: map[string]api.Group{}, gids: map[int]string{}}
	m.passwd, m.group = parse(old.passwd, 7, 2), parse(old.group, 4, 2)
	m.shadow, m.gshadow = parse(old.shadow, 9, -1), parse(old.gshadow, 4, -1)
	m.dropOwn(mine)
	m.wantUsers(want.Users)
	m.wantGroups(want.Groups)
	m.makeRoom()
	for _, s := range system {
		m.addSystem(s)
	}
	for _, u := range m.out.users {
		m.addUser(u, shell)
	}
	for _, name := range sortedKeys(m.groups) {
		m.addGroup(m.groups[name])
	}
	m.out.files = files{join(m.passwd), join(m.group), join(m.shadow), join(m.gshadow)}
	return m.out
}

type merger struct {
	passwd, group, shadow, gshadow []line
	users                          map[string]api.Account
	uids                           map[int]string
	groups                         map[string]api.Group
	gids                           map[int]string
	out                            merged
}

func (m *merger) problem(format string, args ...any) {
	m.out.problems = append(m.out.problems, fmt.Sprintf(format, args...))
}

// dropOwn takes out the lines that Shoal wrote before.
func (m *merger) dropOwn(mine names) {
	user := func(l line) bool { _, ok := mine.Users[l.name]; return ok }
	group := func(l line) bool { return mine.Groups[l.name] }
	m.passwd, m.shadow = slices.DeleteFunc(m.passwd, user), slices.DeleteFunc(m.shadow, user)
	m.group, m.gshadow = slices.DeleteFunc(m.group, group), slices.DeleteFunc(m.gshadow, group)
}

// wantUsers takes the users that can have a line.
func (m *merger) wantUsers(users []api.Account) {
	system := systemNames(m.passwd)
	for _, u := range users {
		name := string(u.Name)
		switch {
		case !plainName(name) || !plainField(u.Home) || !path.IsAbs(u.Home) || !plainField(u.Shell):
			m.problem("user %q cannot be written into passwd", name)
		case u.UID < systemBelow || u.UID == nobody || u.GID != u.UID:
			m.problem("user %s has the number %d/%d, which is not for people", name, u.UID, u.GID)
		case system[name]:
			m.problem("user %s has the name of an account of the image", name)
		case m.uids[u.UID] != "":
			m.problem("users %s and %s have the same number %d", name, m.uids[u.UID], u.UID)
		case m.has(name):
			m.problem("user %s is listed twice", name)
		default:
			m.users[name], m.uids[u.UID] = u, name
			m.out.users = append(m.out.users, u)
			m.out.mine.Users[name] = u.UID
		}
	}
	slices.SortFunc(m.out.users, func(a, b api.Account) int { return strings.Compare(string(a.Name), string(b.Name)) })
}

func (m *merger) has(name string) bool { _, ok := m.users[name]; return ok }

// wantGroups takes the groups that can have a line. Each user has one of her own name and number.
func (m *merger) wantGroups(groups []api.Group) {
	system := systemNames(m.group)
	for _, u := range m.out.users {
		if system[string(u.Name)] {
			m.problem("the group of user %s has the name of a group of the image", u.Name)
			continue
		}
		m.groups[string(u.Name)] = api.Group{GID: u.GID}
		m.gids[u.GID] = string(u.Name)
	}
	for _, g := range groups {
		name := string(g.Name)
		_, twice := m.groups[name]
		switch {
		case !plainName(name):
			m.problem("group %q cannot be written into group", name)
		case g.GID < systemBelow || g.GID == nobody:
			m.problem("group %s has the number %d, which is not for people", name, g.GID)
		case system[name]:
			m.problem("group %s has the name of a group of the image", name)
		case twice:
			m.problem("group %s has the name of another group, or of a user", name)
		case m.gids[g.GID] != "":
			m.problem("groups %s and %s have the same number %d", name, m.gids[g.GID], g.GID)
		default:
			m.groups[name], m.gids[g.GID] = g, name
		}
	}
	for name, g := range m.groups {
		g.Name = shoal.GroupName(name)
		g.Members = slices.DeleteFunc(slices.Clone(g.Members), func(u shoal.UserName) bool { return !m.has(string(u)) })
		slices.Sort(g.Members)
		g.Members = slices.Compact(g.Members)
		m.groups[name] = g
		m.out.mine.Groups[name] = true
	}
}

// systemNames are those of lines below 1000.
func systemNames(lines []line) map[string]bool {
	out := map[string]bool{}
	for _, l := range lines {
		if l.name != "" && (l.id < systemBelow || l.id == nobody) {
			out[l.name] = true
		}
	}
	return out
}

// makeRoom takes out people of the image whose name or number is wanted.
func (m *merger) makeRoom() {
	gone := map[string]bool{}
	m.passwd = slices.DeleteFunc(m.passwd, func(l line) bool {
		if l.name == "" || l.id < systemBelow || l.id == nobody || !m.has(l.name) && m.uids[l.id] == "" {
			return false
		}
		gone[l.name] = true
		return true
	})
	m.shadow = slices.DeleteFunc(m.shadow, func(l line) bool { return gone[l.name] || m.has(l.name) })
	gone = map[string]bool{}
	m.group = slices.DeleteFunc(m.group, func(l line) bool {
		if l.name == "" || l.id < systemBelow || l.id == nobody || !m.hasGroup(l.name) && m.gids[l.id] == "" {
			return false
		}
		gone[l.name] = true
		return true
	})
	m.gshadow = slices.DeleteFunc(m.gshadow, func(l line) bool { return gone[l.name] || m.hasGroup(l.name) })
}

func (m *merger) hasGroup(name string) bool { _, ok := m.groups[name]; return ok }

// addSystem adds an account that the machine needs, unless the image has it.
func (m *merger) addSystem(s System) {
	used := map[int]bool{}
	for _, l := range slices.Concat(m.passwd, m.group) {
		if l.name == s.Name && slices.ContainsFunc(m.passwd, func(l line) bool { return l.name == s.Name }) {
			return
		}
		used[l.id] = true
	}
	id := systemBelow - 1
	for used[id] && id > 100 {
		id--
	}
	m.passwd = append(m.passwd, line{name: s.Name, id: id, raw: fmt.Sprintf("%s:x:%d:%d:shoal:%s:%s", s.Name, id, nobody, s.Home, s.Shell)})
	m.shadow = append(m.shadow, line{name: s.Name, id: -1, raw: fmt.Sprintf("%s:*:%d::::::", s.Name, lastChange)})
}

// addUser adds the lines of a user. The date of expiry, long ago, is what keeps a disabled one out by
// whatever door.
func (m *merger) addUser(u api.Account, shell func(string) bool) {
	sh, expires := u.Shell, ""
	for _, try := range []string{u.Shell, "/bin/bash", "/bin/sh"} {
		if sh = try; sh != "" && shell(sh) {
			break
		}
	}
	if u.Disabled {
		sh, expires = "/usr/sbin/nologin", "1"
	}
	m.passwd = append(m.passwd, line{name: string(u.Name), id: u.UID,
		raw: fmt.Sprintf("%s:x:%d:%d::%s:%s", u.Name, u.UID, u.GID, u.Home, sh)})
	m.shadow = append(m.shadow, line{name: string(u.Name), id: -1, raw: fmt.Sprintf("%s:*:%d:0:99999:7::%s:", u.Name, lastChange, expires)})
}

func (m *merger) addGroup(g api.Group) {
	members := make([]string, len(g.Members))
	for i, u := range g.Members {
		members[i] = string(u)
	}
	list := strings.Join(members, ",")
	m.group = append(m.group, line{name: string(g.Name), id: g.GID, raw: fmt.Sprintf("%s:x:%d:%s", g.Name, g.GID, list)})
	m.gshadow = append(m.gshadow, line{name: string(g.Name), id: -1, raw: fmt.Sprintf("%s:*::%s", g.Name, list)})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
