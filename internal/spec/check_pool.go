package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// The bounds of a pool.
const (
	maxMachines = 10_000
	maxSeats    = 10_000
	minMemory   = shoal.Bytes(64 << 20)
	minCPU      = shoal.MilliCPU(10)
)

// CheckPool returns what is wrong with a pool that has its defaults.
func CheckPool(p shoal.Pool) []shoal.Mistake {
	var c checks
	c.name(string(p.Name), "pool")
	c.provider(p.Provider)
	if p.Image == "" {
		c.wrong("image", "", "the pool has no image")
	} else if strings.HasPrefix(p.Image, "/") {
		c.absolute("image", p.Image)
	} else if c.line("image", p.Image, 1024) && strings.ContainsAny(p.Image, " ") {
		c.wrong("image", "write host, a path, or the reference of an image", "%q cannot be an image", clip(p.Image))
	}
	if p.OS != "" {
		c.oneOf("os", p.OS, "linux", shoal.Windows)
	}
	if len(p.Uses) == 0 {
		c.wrong("uses", "write [interactive, batch]", "the pool is for nothing")
	}
	for i, u := range p.Uses {
		at := fmt.Sprintf("uses[%d]", i)
		c.oneOf(at, string(u), string(shoal.UseInteractive), string(shoal.UseBatch))
		if slices.Index(p.Uses, u) != i {
			c.wrong(at, "", "%q is there twice", u)
		}
	}
	c.machine(p.Machine)
	c.size(p)
	c.oneOf("placement", string(p.Placement), string(shoal.PlaceSpread), string(shoal.PlacePack), string(shoal.PlaceLeastLoaded))
	c.mounts(p)
	c.home(p)
	if s := p.Setup; s != nil {
		if s.Command == "" {
			c.wrong("setup.command", "", "the setup has no command")
		}
		c.text("setup.command", s.Command, 64<<10)
	}
	c.secrets(p)
	c.scale(p)
	c.rollout(p)
	c.seat(p)
	c.endpoints(p.Endpoints)
	if len(p.Endpoints) > 0 && !p.Has(shoal.UseInteractive) {
		c.wrong("endpoints", "add interactive to uses", "the pool has endpoints, and takes no logins")
	}
	c.limits(p.Limits)
	c.price(p.Price)
	c.labels(p.Labels)
	return c.mistakes
}

func (c *checks) provider(s string) {
	known := []string{"local", "fake", "kubernetes", "azure"}
	if exe, ok := strings.CutPrefix(s, "exec:"); ok {
		c.absolute("provider", exe)
		return
	}
	if !slices.Contains(known, s) {
		c.wrong("provider", suggest(s, []string{"local", "kubernetes", "azure", "exec:/path/to/provider"}), "there is no provider %q", clip(s))
	}
}

func (c *checks) machine(r shoal.Resources) {
	if r.CPUs < minCPU {
		c.wrong("machine.cpus", "", "a machine needs at least %s processors", minCPU)
	}
	if r.Memory < minMemory {
		c.wrong("machine.memory", "write 1GiB, for example", "a machine needs at least %s of memory, not %s", minMemory, r.Memory)
	}
	c.within("machine.gpus", r.GPUs, 0, 64)
}

func (c *checks) size(p shoal.Pool) {
	c.within("size.min", p.Size.Min, 0, maxMachines)
	c.within("size.max", p.Size.Max, 0, maxMachines)
	c.within("seats", p.Seats, 1, maxSeats)
	if p.Size.Min > p.Size.Max {
		c.wrong("size.min", "", "the least number of machines (%d) is more than the most (%d)", p.Size.Min, p.Size.Max)
	}
	if d := p.Size.Default; d != 0 && (d < p.Size.Min || d > p.Size.Max) {
		c.wrong("size.default", "", "%d is not between %d and %d", d, p.Size.Min, p.Size.Max)
	} else if d != 0 && len(p.Scale.Rules) == 0 {
		c.wrong("size.default", "leave it out, or write size.min", "it holds while the figures for scale.rules are not known, and there are no rules")
	}
	if p.Size.Spare < 0 {
		c.wrong("size.spare", "", "%d is less than 0", p.Size.Spare)
	} else if p.Size.Spare > p.Size.Max*p.Seats {
		c.wrong("size.spare", "it counts seats", "%d spare seats are more than %d machines of %d seats have", p.Size.Spare, p.Size.Max, p.Seats)
	}
}

// ownDirs are a machine's own: nothing can be mounted there, below or above.
var ownDirs = strings.Fields("/opt/shoal /var/lib/shoal-agent /tmp /var/tmp /var/run /var/log /var/lib/dpkg")

func (c *checks) mounts(p shoal.Pool) {
	for i, m := range p.Mounts {
		at := fmt.Sprintf("mounts[%d]", i)
		if !objectName.MatchString(string(m.Share)) {
			c.wrong(at+".share", "", "%q cannot be the name of a share", clip(string(m.Share)))
		}
		if !c.absolute(at+".path", m.Path) {
			continue
		}
		own := slices.IndexFunc(ownDirs, func(dir string) bool { return below(m.Path, dir) || below(dir, m.Path) })
		if system(m.Path) != "" || own >= 0 {
			c.wrong(at+".path", "choose a directory of its own, such as /shared", "a share cannot be mounted onto %s, which belongs to the machine", m.Path)
		}
		for _, other := range p.Mounts[:i] {
			if other.Path != "" && (below(m.Path, other.Path) || below(other.Path, m.Path)) {
				c.wrong(at+".path", "", "%s and %s are mounted over each other", other.Path, m.Path)
			}
		}
	}
}

func (c *checks) home(p shoal.Pool) {
	dsvm := p.Home.Layout == shoal.LayoutDSVM
	if p.Home.Layout != "" {
		c.oneOf("home.layout", p.Home.Layout, shoal.LayoutDSVM)
	}
	if dsvm && p.Home.Path != "" {
		c.wrong("home.path", "leave it out", "with this layout homes are local, and notebooks/{user} of the share is each user's")
	}
	if p.Home.Share == "" {
		if dsvm {
			c.wrong("home.share", "write {layout: dsvm, share: NAME}", "the layout links homes to a share, and it is not said to which")
			return
		}
		if p.Home.Path != "" {
			c.wrong("home.share", "", "home.path is relative to a share, and no share is given")
		}
		return
	}
	if !dsvm && p.Home.Layout == "" {
		c.relative("home.path", p.Home.Path, "{user}")
	}
	i := slices.IndexFunc(p.Mounts, func(m shoal.Mount) bool { return m.Share == p.Home.Share })
	switch {
	case i < 0:
		c.wrong("home.share", fmt.Sprintf("add {share: %s, path: /shared} to mounts", clip(string(p.Home.Share))), "homes are on share %q, which the pool does not mount", clip(string(p.Home.Share)))
	case p.Mounts[i].ReadOnly:
		c.wrong("home.share", "", "homes are on share %q, which is mounted read-only", p.Home.Share)
	case dsvm && (p.Home.Share == "notebooks" || below("/home", p.Mounts[i].Path) || below(p.Mounts[i].Path, "/home")):
		c.wrong("home.share", "mount it at /mnt/SHARE, say, or give the share another name", "~/%s would be in the way of local homes", p.Home.Share)
	}
}

// seat checks what each session is entitled to: all seats together are no more than the machine has.
func (c *checks) seat(p shoal.Pool) {
	have := p.Machine
	for _, f := range []struct {
		path       string
		seat, have int64
	}{{"seat.cpus", int64(p.Seat.CPUs), int64(have.CPUs)}, {"seat.memory", int64(p.Seat.Memory), int64(have.Memory)}, {"seat.gpus", int64(p.Seat.GPUs), int64(have.GPUs)}} {
		if f.seat < 0 || f.seat > max(f.have, 0) {
			c.wrong(f.path, "", "a seat cannot have more than the machine, or less than nothing")
		}
	}
}

func (c *checks) limits(l shoal.Limits) {
	c.within("limits.perUser.sessions", l.PerUser.Sessions, 0, maxSeats)
	c.within("limits.perUser.connections", l.PerUser.Connections, 0, 100_000)
	c.within("limits.perUser.jobs", l.PerUser.Jobs, 0, shoal.MaxArray)
	c.within("limits.perUser.tasks", l.PerUser.Tasks, 0, shoal.MaxArray)
	c.within("limits.perUser.gpus", l.PerUser.GPUs, 0, 100_000)
	c.within("limits.perGroup.tasks", l.PerGroup.Tasks, 0, shoal.MaxArray)
	c.within("limits.perGroup.gpus", l.PerGroup.GPUs, 0, 100_000)
	for path, d := range map[string]shoal.Duration{"limits.defaultTimeLimit": l.DefaultTimeLimit, "limits.maxTimeLimit": l.MaxTimeLimit, "limits.minRunTime": l.MinRunTime} {
		if d > maxLimit {
			c.wrong(path, "", "%s is longer than %s", d, maxLimit)
		}
	}
	if l.MaxTimeLimit > 0 && l.DefaultTimeLimit > l.MaxTimeLimit {
		c.wrong("limits.defaultTimeLimit", "", "it is longer than the longest, %s", l.MaxTimeLimit)
	}
}

func (c *checks) price(p shoal.Price) {
	if p.PerHour < 0 || p.PerHour > 1e6 || !finite(p.PerHour) {
		c.wrong("price.perHour", "", "%v cannot be a price", p.PerHour)
	}
	if p.PerHour != 0 && p.Currency == "" {
		c.wrong("price.currency", "write EUR, for example", "the price has no currency")
	} else if p.Currency != "" && !currency.MatchString(p.Currency) {
		c.wrong("price.currency", "write EUR, for example", "%q is not a currency", clip(p.Currency))
	}
}
