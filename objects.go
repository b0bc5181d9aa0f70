package shoal

import (
	"path"
	"slices"
	"strings"
	"time"
)

// Meta is what the store adds to every object: its revision and times.
type Meta struct {
	Rev     Rev       `json:"rev,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Updated time.Time `json:"updated,omitzero"`
}

// Share is a directory that machines mount: a local directory or a network file system.
type Share struct {
	Name ShareName `json:"name"`
	// Source is /dir, nfs://host/path, smb://host/share, azurefiles://account/share or sftp://user@host/path.
	Source      string            `json:"source"`
	Credentials *SecretRef        `json:"credentials,omitempty"`
	GroupDirs   []GroupDir        `json:"groupDirs,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"` // by which people find it
	Meta
}

// Owned reports whether files on the share have owners of their own. Where they have not, whoever mounts it says to whom
// they all belong, so users' homes on it are mounted one by one.
func (s Share) Owned() bool {
	return strings.HasPrefix(s.Source, "/") || strings.HasPrefix(s.Source, "nfs://") || strings.HasPrefix(s.Source, "pvc://")
}

// SecretRef names a secret of the secret store; objects never hold the value.
type SecretRef struct {
	Secret string `json:"secret"`
}

// GroupDir is a directory of a share, one per group, in which every file belongs to the group.
type GroupDir struct {
	Path string `json:"path"` // relative to the share, holds {group}
	Mode string `json:"mode,omitempty"`
}

// Use is what a pool is for.
type Use string

// The uses of a pool.
const (
	UseInteractive Use = "interactive"
	UseBatch       Use = "batch"
)

// Windows is the OS of a pool whose machines do not run Linux.
const Windows = "windows"

// Pool is a set of identical machines made from one image.
type Pool struct {
	Name           PoolName       `json:"name"`
	Default        bool           `json:"default,omitempty"`
	Provider       string         `json:"provider"` // local, fake, kubernetes, azure, exec:/path
	ProviderConfig map[string]any `json:"providerConfig,omitempty"`
	Image          string         `json:"image"`
	OS             string         `json:"os,omitempty"` // windows; empty: linux
	Uses           []Use          `json:"uses"`
	Machine        Resources      `json:"machine"`
	Size           Size           `json:"size"`
	Seats          int            `json:"seats"` // sessions per machine
	// Seat is what a session is entitled to on its machine; tasks of others borrow it while nobody
	// is there. Default: its part of the machine.
	Seat      Resources  `json:"seat,omitzero"`
	Placement Placement  `json:"placement"`
	Mounts    []Mount    `json:"mounts,omitempty"`
	Home      Home       `json:"home,omitzero"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Setup     *Setup     `json:"setup,omitempty"`
	// Secrets are those that sessions get, by their variables: of each user what she may use under that name.
	Secrets map[string]string `json:"secrets,omitempty"`
	Scale   Scale             `json:"scale"`
	Limits  Limits            `json:"limits,omitzero"`
	Price   Price             `json:"price,omitzero"`
	// Labels are for people to find it by: `shoal deploy -g G` gives it group: G.
	Labels  map[string]string `json:"labels,omitempty"`
	Rollout Rollout           `json:"rollout,omitzero"`
	Repair  Repair            `json:"repair,omitzero"`
	// Fixed is the size that `pool scale --size` asked for; nil while the pool scales by itself.
	Fixed *FixedSize `json:"fixed,omitempty"`
	// Paused: nothing is replaced. Resumed is when that last ended, and what failed before is forgiven.
	Paused  *Pause    `json:"paused,omitempty"`
	Resumed time.Time `json:"resumed,omitzero"`
	// Deleting marks a pool that takes nobody new and goes with its last machine.
	Deleting bool `json:"deleting,omitempty"`
	Meta
}

// FixedSize is a size set by hand, until a time or, with a zero time, until `--auto`.
type FixedSize struct {
	Size  int       `json:"size"`
	Until time.Time `json:"until,omitzero"`
}

// Has reports whether the pool is for a use.
func (p Pool) Has(u Use) bool {
	for _, v := range p.Uses {
		if v == u {
			return true
		}
	}
	return false
}

// Resources is what a machine has, or what a task asks for.
type Resources struct {
	CPUs   MilliCPU `json:"cpus,omitempty"`
	Memory Bytes    `json:"memory,omitempty"`
	GPUs   int      `json:"gpus,omitempty"`
}

// Fits reports whether r is within have.
func (r Resources) Fits(have Resources) bool {
	return r.CPUs <= have.CPUs && r.Memory <= have.Memory && r.GPUs <= have.GPUs
}

// Add returns the sum of both.
func (r Resources) Add(o Resources) Resources {
	return Resources{CPUs: r.CPUs + o.CPUs, Memory: r.Memory + o.Memory, GPUs: r.GPUs + o.GPUs}
}

// Sub returns r without o.
func (r Resources) Sub(o Resources) Resources {
	return Resources{CPUs: r.CPUs - o.CPUs, Memory: r.Memory - o.Memory, GPUs: r.GPUs - o.GPUs}
}

// Size bounds the number of machines. Spare counts seats, not machines.
type Size struct {
	Min   int `json:"min"`
	Max   int `json:"max"`
	Spare int `json:"spare,omitempty"`
	// Default is how many there are at least while the figures that rules ask for are not known.
	Default int `json:"default,omitempty"`
}

// Placement is how logins are spread over machines.
type Placement string

// The placements.
const (
	PlaceSpread      Placement = "spread"       // the machine with the fewest sessions
	PlacePack        Placement = "pack"         // the fullest machine with a free seat
	PlaceLeastLoaded Placement = "least-loaded" // the machine with the lowest load, random among the lower half
)

// Mount puts a share, or a path below it, into a machine.
type Mount struct {
	Share    ShareName `json:"share"`
	Path     string    `json:"path"`
	ReadOnly bool      `json:"readOnly,omitempty"`
}

// LayoutDSVM is the layout of homes that data science machines had: a home lies on the machine's own disk, with a link to the
// share, ~/SHARE, and one to a directory of the user's own on it, ~/notebooks/remote. What else lies in it is archived there.
const LayoutDSVM = "dsvm"

// Home says where users' home directories live. Path is relative to the share and holds {user}.
// With no share homes are local to the machine. Layout is empty or LayoutDSVM.
type Home struct {
	Share  ShareName `json:"share,omitempty"`
	Path   string    `json:"path,omitempty"`
	Layout string    `json:"layout,omitempty"`
}

// HomeOf is where a user's home is on the pool's machines: on the share where it is mounted first, or on
// the machine's own disk.
func (p Pool) HomeOf(name UserName) string {
	if i := p.HomeMount(); i >= 0 && p.Home.Layout != LayoutDSVM {
		return path.Join(p.Mounts[i].Path, p.HomeSub(name))
	}
	return "/home/" + string(name)
}

// HomeSub is a user's own directory on the share of the homes, relative to it: her home or, with LayoutDSVM, what her home
// links to. It is empty where there is no such share.
func (p Pool) HomeSub(name UserName) string {
	switch {
	case p.Home.Share == "":
		return ""
	case p.Home.Layout == LayoutDSVM:
		return path.Join("notebooks", string(name))
	}
	return strings.ReplaceAll(p.Home.Path, "{user}", string(name))
}

// SharedOf is a user's directory that is the same on all machines of the pool, if she has one, and else her home.
func (p Pool) SharedOf(name UserName) string {
	if i := p.HomeMount(); i >= 0 {
		return path.Join(p.Mounts[i].Path, p.HomeSub(name))
	}
	return p.HomeOf(name)
}

// HomeMount is which of the pool's mounts holds the homes, or what they link to; -1: none.
func (p Pool) HomeMount() int {
	for i, m := range p.Mounts {
		if p.Home.Share != "" && m.Share == p.Home.Share {
			return i
		}
	}
	return -1
}

// Setup is run once on every new machine, as root, before it is ready.
type Setup struct {
	Command string   `json:"command"`
	Timeout Duration `json:"timeout,omitempty"`
}

// Limits bound what users may hold.
type Limits struct {
	PerUser  PerUser  `json:"perUser,omitzero"`
	PerGroup PerGroup `json:"perGroup,omitzero"`
	// DefaultTimeLimit is that of tasks that have none of their own; MaxTimeLimit bounds all.
	DefaultTimeLimit Duration `json:"defaultTimeLimit,omitempty"`
	MaxTimeLimit     Duration `json:"maxTimeLimit,omitempty"`
	// MinRunTime is for how long a task is not preempted, except by a login. Default: a minute.
	MinRunTime Duration `json:"minRunTime,omitempty"`
}

// PerUser bounds one user in one pool; zero means no limit.
type PerUser struct {
	Sessions    int      `json:"sessions,omitempty"`
	Connections int      `json:"connections,omitempty"`
	Jobs        int      `json:"jobs,omitempty"`  // that have not ended
	Tasks       int      `json:"tasks,omitempty"` // that run at a time
	CPUs        MilliCPU `json:"cpus,omitempty"`  // of running tasks, like what follows
	Memory      Bytes    `json:"memory,omitempty"`
	GPUs        int      `json:"gpus,omitempty"`
}

// PerGroup bounds what the running tasks of a group's members use in one pool; zero means no limit.
type PerGroup struct {
	Tasks  int      `json:"tasks,omitempty"`
	CPUs   MilliCPU `json:"cpus,omitempty"`
	Memory Bytes    `json:"memory,omitempty"`
	GPUs   int      `json:"gpus,omitempty"`
}

// Price is what a machine costs while it runs.
type Price struct {
	PerHour  float64 `json:"perHour,omitempty"`
	Currency string  `json:"currency,omitempty"`
}

// Role is what a user may do.
type Role string

// The roles, each including the one before.
const (
	RoleMember   Role = "member"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// User is a person, with the same uid on every machine.
type User struct {
	Name     UserName    `json:"name"`
	UID      int         `json:"uid,omitempty"`
	Keys     []string    `json:"keys,omitempty"` // authorized_keys lines
	Groups   []GroupName `json:"groups,omitempty"`
	Role     Role        `json:"role,omitempty"`
	Shell    string      `json:"shell,omitempty"`
	Disabled bool        `json:"disabled,omitempty"`
	Budget   Budget      `json:"budget,omitzero"`
	// HasPassword is observed. The hash lives beside the object and is never part of it.
	HasPassword bool `json:"hasPassword,omitempty"`
	Meta
}

// Group is a set of users with a gid. Membership may be written on either side; the union counts.
type Group struct {
	Name    GroupName  `json:"name"`
	GID     int        `json:"gid,omitempty"`
	Members []UserName `json:"members,omitempty"`
	// Weight is the group's part where groups compete for machines: fair share. Default: 1.
	Weight float64 `json:"weight,omitempty"`
	Budget Budget  `json:"budget,omitzero"`
	Meta
}

// Memberships are all groups of a user, whichever side names them, by name.
func (u User) Memberships(groups []Group) []GroupName {
	all := slices.Clone(u.Groups)
	for _, g := range groups {
		if slices.Contains(g.Members, u.Name) {
			all = append(all, g.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// FirstID and LastID bound the uids and gids that Shoal gives out by itself. They lie above
// what Debian gives to people (1000-59999 is allowed, adduser fills from 1000) and below the
// ranges of systemd and of user namespaces.
const (
	FirstID = 20001
	LastID  = 59999
)
