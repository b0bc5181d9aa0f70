package activity

import (
	"strings"
	"time"
)

// found is what a user has.
type found struct {
	connections int
	pins        map[string]int
	desktop     bool      // something of a remote desktop's
	kernel      time.Time // when a notebook's kernel last computed, as its server says
	programs    []string  // that are in use by themselves, whether or not she looks at them
	own         []*proc   // all that is hers alone: of no task, web app or desktop
}

// role is what a process is to its user.
type role int

const (
	plain    role = iota
	visiting      // a live connection's
	serving       // a task's
	leftover      // of no account, but its children are
	editor        // an editor's server
	desktop       // all of a remote desktop
	webApp        // a web app's, which says by itself that it runs
)

// judge finds what each user has. client tells, once for each user with her number of connections, whether an
// editor's server may still be waited for.
func judge(procs []proc, user func(uid int) bool, client func(uid, connections int) bool) map[int]*found {
	t := tree{byPID: make(map[int]*proc, len(procs)), roles: make(map[int]role, len(procs)), out: map[int]*found{}}
	for i := range procs {
		t.byPID[procs[i].pid] = &procs[i]
	}
	for i := range procs {
		p := &procs[i]
		if !user(p.uid) {
			continue
		}
		f := t.out[p.uid]
		if f == nil {
			f = &found{pins: map[string]int{}}
			t.out[p.uid] = f
		}
		if t.connection(p) {
			f.connections++
		}
	}
	waits := make(map[int]bool, len(t.out))
	for uid, f := range t.out {
		waits[uid] = client(uid, f.connections)
	}
	for i := range procs {
		p := &procs[i]
		f := t.out[p.uid]
		if f == nil {
			continue
		}
		switch t.role(p, 0) {
		case plain, visiting, leftover, editor:
			f.own = append(f.own, p)
			p.visit = t.visit(p)
			if p.last.After(f.kernel) {
				f.kernel = p.last
			}
			if t.program(p) {
				f.programs = append(f.programs, p.name)
			}
		case serving, webApp, desktop: // how these end is for others to say
		}
		switch t.role(p, 0) {
		case plain:
			if kernel(p) {
				f.pins["kernel"]++
			} else if t.first(p) {
				f.pins[kind(p)]++
			}
		case editor:
			switch {
			case kernel(p):
				f.pins["kernel"]++
			case waits[p.uid]:
				if t.first(p) {
					f.pins["process"]++
				}
			case p.tty && !shell(p.name):
				f.pins["process"]++ // it runs in one of the editor's terminals
			}
		case webApp:
			if kernel(p) {
				f.pins["kernel"]++
			} else if parent := t.byPID[p.ppid]; p.tty && shell(p.name) && (parent == nil || !parent.tty) {
				f.pins["terminal"]++
			}
		case desktop:
			f.desktop = true
			if xserver(p) && t.seated(p) {
				f.pins["desktop"]++
			}
		case serving, visiting, leftover:
		}
	}
	for _, f := range t.out {
		if f.desktop && f.pins["desktop"] == 0 { // by an X server of another name
			f.pins["desktop"] = 1
		}
	}
	return t.out
}

// tree is the processes with what is known of them.
type tree struct {
	byPID map[int]*proc
	roles map[int]role
	out   map[int]*found
}

func sshd(name string) bool { return name == "sshd" || name == "sshd-session" }

// connection reports whether p is a user's half of an SSH connection: her sshd, whose parent is root's. A
// process of hers that merely calls itself so has another parent.
func (t *tree) connection(p *proc) bool {
	parent := t.byPID[p.ppid]
	return sshd(p.name) && p.uid != 0 && !p.task && parent != nil && parent.uid == 0 && sshd(parent.name)
}

// visit is the connection that p belongs to, through whatever it came from that.
func (t *tree) visit(p *proc) process {
	for range 1000 { // a loop, put together from two moments
		if p == nil {
			break
		}
		if t.connection(p) {
			return process{p.pid, p.born}
		}
		p = t.byPID[p.ppid]
	}
	return process{}
}

// role finds what p is, by itself and by what it comes from.
func (t *tree) role(p *proc, depth int) role {
	if r, ok := t.roles[p.pid]; ok {
		return r
	}
	const deep = 1000 // a loop, put together from two moments
	r := plain
	parent := t.byPID[p.ppid]
	switch {
	case depth > deep:
	case t.connection(p):
		r = visiting
	case p.task, supervisor(p):
		r = serving
	case t.seated(p):
		r = desktop
	case sshd(p.name) || left(p):
		r = leftover
		if parent != nil {
			if above := t.inherits(p, parent, depth); above == serving || above == visiting || above == desktop || above == webApp {
				r = above
			}
		}
	case editorServer(p):
		r = editor
	}
	if parent != nil && (r == plain || r == editor) {
		if above := t.inherits(p, parent, depth); above != plain && above != leftover {
			r = above
		}
	}
	t.roles[p.pid] = r
	return r
}

// inherits is the role that p has of its parent: that of the nearest ancestor of the same user, unless
// it is a task, which is its user's whoever started the supervisor.
func (t *tree) inherits(p, parent *proc, depth int) role {
	for ; parent != nil && depth < 1000; depth++ {
		switch {
		case supervisor(parent):
			return serving
		case appSupervisor(parent):
			return webApp
		}
		if parent.uid == p.uid {
			return t.role(parent, depth+1)
		}
		if parent.uid != 0 {
			return plain // started by somebody else
		}
		parent = t.byPID[parent.ppid] // su, sudo and the like
	}
	return plain
}

// seated reports whether p is one of the programs that make up a user's remote desktop: xrdp-sesman, which is root's,
// has started it as her. It stays when her client goes, and ends with her desktop.
func (t *tree) seated(p *proc) bool {
	parent := t.byPID[p.ppid]
	return p.uid != 0 && parent != nil && parent.uid == 0 && parent.name == "xrdp-sesman"
}

// xserver reports whether p is what a desktop is shown by.
func xserver(p *proc) bool { return p.name == "Xorg" || p.name == "Xvnc" }

// first reports whether p is the first of a tree: its parent is none of its user's that counts.
func (t *tree) first(p *proc) bool {
	parent := t.byPID[p.ppid]
	return parent == nil || parent.uid != p.uid || t.role(parent, 0) == leftover
}

// kind is what a tree's first process makes it.
func kind(p *proc) string {
	switch {
	case p.name == "tmux: server" || p.name == "screen" || p.name == "SCREEN" || p.name == "zellij":
		return "tmux"
	case p.tty && shell(p.name):
		return "shell"
	}
	return "process"
}

func shell(name string) bool {
	switch name {
	case "sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "tcsh", "csh", "ash", "busybox":
		return true
	}
	return false
}

// left reports whether p is something that sessions leave behind and nobody waits for.
func left(p *proc) bool {
	switch p.name {
	case "ssh-agent", "gpg-agent", "scdaemon", "dirmngr", "keyboxd", "dbus-daemon", "dbus-broker", "dbus-broker-lau", "dbus-launch",
		"(sd-pam)", "gnome-keyring-d", "pulseaudio", "pipewire", "pipewire-pulse", "pipewire-media-", "wireplumber", "dconf-service",
		"at-spi-bus-laun", "at-spi2-registr", "xdg-permission-", "xdg-document-po", "xdg-desktop-por", "mosh-agent":
		return true
	case "systemd":
		return strings.Contains(p.args, "--user")
	case "keychain":
		return true
	}
	return strings.HasPrefix(p.name, "gvfs")
}

// toldByArgs reports whether more than its name is needed to know what a program is.
func toldByArgs(name string) bool {
	switch name {
	case "node", "java", "systemd", "shoal-agent", "rg", "cpptools", "fsnotifier", "MainThread":
		return true
	}
	return shell(name) || strings.HasPrefix(name, "python") || strings.HasPrefix(name, "ipykernel") || strings.HasPrefix(name, "code") || strings.HasPrefix(name, "cursor") ||
		strings.HasPrefix(name, "remote-dev") || strings.HasPrefix(name, "jupyter")
}

// editorServer reports whether p belongs to the server of a remote editor.
func editorServer(p *proc) bool {
	if p.args == "" {
		return false
	}
	for _, mark := range []string{"/.vscode-server/", "/.vscode-server-insiders/", "/.vscode-remote/", "/.cursor-server/", "/.windsurf-server/",
		"/.vscodium-server/", "/.positron-server/", "/.trae-server/", "/.cache/JetBrains/RemoteDev", "/.cache/JetBrains/remote-dev", "remote-dev-server"} {
		if strings.Contains(p.args, mark) {
			return true
		}
	}
	return false
}

// kernel reports whether p is a notebook's kernel.
func kernel(p *proc) bool {
	return strings.Contains(p.args, "ipykernel") || strings.Contains(p.args, "-f ") && strings.Contains(p.args, "/kernel-") && strings.Contains(p.args, ".json")
}

// appSupervisor reports whether p runs a web app.
func appSupervisor(p *proc) bool {
	return p.uid == 0 && p.name == "shoal-agent" && strings.Contains(p.args, " app ")
}

// supervisor reports whether p runs tasks.
func supervisor(p *proc) bool {
	return p.uid == 0 && p.name == "shoal-agent" && strings.Contains(p.args, " task ")
}
