package batchai

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

// Cluster is a cluster.json in our words.
type Cluster struct {
	Pool   shoal.Pool
	Shares []shoal.Share
	Notes  []Note
}

// ReadCluster reads a cluster.json. The error is of KindInvalid and lists all mistakes.
func ReadCluster(f spec.File, o Options) (Cluster, error) {
	r := &reading{file: f.Name, options: o, used: map[string]bool{}}
	n, err := r.open(f, keysOf(reflect.TypeFor[clusterFile]()))
	if err != nil {
		return Cluster{}, err
	}
	var file clusterFile
	r.read(n, &file)
	c := r.cluster(file)
	if !r.found() {
		for _, m := range spec.CheckPool(c.Pool) {
			r.wrong(n.at, m.Path, m.Hint, "%s", m.Msg)
		}
		for _, s := range c.Shares {
			for _, m := range spec.CheckShare(s) {
				r.wrong(n.at, m.Path, m.Hint, "share %q: %s", s.Name, m.Msg)
			}
		}
	}
	if r.found() {
		return Cluster{}, r.invalid()
	}
	c.Notes = r.sorted()
	return c, nil
}

func (r *reading) cluster(f clusterFile) Cluster {
	p := f.Properties
	name := r.options.Name
	if name == "" {
		name = f.Name.s
	}
	c := Cluster{Pool: shoal.Pool{Name: shoal.PoolName(naming.Of(name, "cluster")), Uses: []shoal.Use{shoal.UseBatch}}}
	r.size(&c.Pool, p.Size)
	r.scale(&c.Pool, p.Scale)
	switch strings.ToLower(p.Priority.s) {
	case "", "dedicated":
	case "lowpriority":
		r.note(p.Priority.at, "vmPriority: machines of a pool are its own: nobody takes them away")
	default:
		r.wrong(p.Priority.at, "properties.vmPriority", spec.Suggest(p.Priority.s, []string{"dedicated", "lowpriority"}), "%q is no priority", clip(p.Priority.s))
	}
	if m := p.Machine; m != nil && m.Image != nil {
		i := m.Image
		r.note(i.At, "image %s becomes the image host, this machine's own software; change it where that is not enough",
			strings.Trim(strings.Join([]string{i.Publisher.s, i.Offer.s, i.SKU.s, i.ID.s}, ":"), ":"))
	}
	if a := p.Account; a != nil {
		r.note(a.At, "userAccountSettings: people log in with accounts of their own, so there is no common one; `shoal user add NAME --key FILE` adds one")
		if a.Password.s != "" {
			r.inline(a.Password.at, "properties.userAccountSettings.adminUserPassword")
		}
	}
	if p.Subnet != nil {
		r.note(p.Subnet.ID.at, "subnet: machines of a pool have a network of their own")
	}
	if p.Setup != nil {
		r.setup(&c, *p.Setup)
	}
	spec.DefaultPool(&c.Pool)
	return c
}

func (r *reading) size(p *shoal.Pool, written text) {
	if written.s == "" {
		r.wrong(place{}, "properties.vmSize", "write STANDARD_NC6, for example", "the cluster has no vmSize")
		return
	}
	s, ok := sizeOf(written.s)
	if !ok {
		known := sizesLike(written.s)
		if len(known) == 0 {
			known = []string{"STANDARD_D2_V2", "STANDARD_NC6"}
		}
		r.wrong(written.at, "properties.vmSize", spec.Suggest(strings.ToUpper(written.s), known), "there is no size %q", clip(written.s))
		return
	}
	p.Machine = s.resources()
}

func (r *reading) scale(p *shoal.Pool, s *scaleSettings) {
	const most = 10_000
	within := func(n number, path string, low int) {
		if n.n < low || n.n > most {
			r.wrong(n.at, path, "", "%d is not between %d and %d", n.n, low, most)
		}
	}
	const at = "properties.scaleSettings"
	switch {
	case s == nil || s.Manual == nil && s.Auto == nil:
		r.liberty(place{}, at, "add autoScale: {minimumNodeCount: 0, maximumNodeCount: 1}", "it has one machine at most, and none when it is idle", "the cluster says nothing about its size")
		p.Size = shoal.Size{Max: 1}
	case s.Manual != nil && s.Auto != nil:
		r.wrong(s.At, at, "leave one of them out", "a cluster scales by hand or by itself, not both")
	case s.Manual != nil:
		n := s.Manual.Target
		within(n, at+".manual.targetNodeCount", 0)
		p.Size = shoal.Size{Min: n.n, Max: n.n}
		if o := s.Manual.Option; o.s != "" {
			r.note(o.at, "nodeDeallocationOption: machines always finish what they run before they are stopped")
		}
	default:
		a := s.Auto
		within(a.Min, at+".autoScale.minimumNodeCount", 0)
		within(a.Max, at+".autoScale.maximumNodeCount", 0)
		if !a.Max.set {
			r.wrong(a.At, at+".autoScale.maximumNodeCount", "", "the cluster does not say how large it may be")
		} else if a.Min.n > a.Max.n {
			r.wrong(a.Min.at, at+".autoScale.minimumNodeCount", "", "the least number of nodes (%d) is more than the most (%d)", a.Min.n, a.Max.n)
		}
		p.Size = shoal.Size{Min: a.Min.n, Max: a.Max.n}
		if a.Initial.n > a.Min.n {
			r.note(a.Initial.at, "initialNodeCount: a pool grows when there is work")
		}
	}
}

func (r *reading) setup(c *Cluster, s nodeSetup) {
	if s.Counters.at.line > 0 {
		r.note(s.Counters.at, "performanceCountersSettings: `/metrics` of the server has the pool's numbers")
	}
	for _, v := range r.volumes(s.Mounts, "properties.nodeSetup.mountVolumes") {
		m := shoal.Mount{Path: ClusterRoot + "/" + v.name}
		if v.mapped != "" {
			share, dir, _ := strings.Cut(v.mapped, ":")
			if dir != "/" {
				r.wrong(v.at, v.path, "write --share "+v.name+"="+share+":/", "a pool mounts whole shares, and %s is a part of one", clip(v.mapped))
			}
			m.Share = shoal.ShareName(share)
			c.Pool.Mounts = append(c.Pool.Mounts, m)
			continue
		}
		m.Share = v.share.Name
		c.Pool.Mounts = append(c.Pool.Mounts, m)
		if !slices.ContainsFunc(c.Shares, func(o shoal.Share) bool { return o.Name == v.share.Name }) {
			c.Shares = append(c.Shares, *v.share)
		}
		r.note(v.at, "mount %q becomes share %q of source %s, at %s; --share %s=SHARE:/ takes one that there is", v.name, v.share.Name, v.share.Source, m.Path, v.name)
		if strings.Contains(v.share.Source, placeholder) {
			r.note(v.at, "the source of share %q has a placeholder for the account: set AZURE_BATCHAI_STORAGE_ACCOUNT to its name", v.share.Name)
		}
	}
	if t := s.Task; t != nil {
		r.setupTask(c, *t)
	}
}

// setupTask is the command that a machine runs before it is ready.
func (r *reading) setupTask(c *Cluster, t setupTask) {
	const at = "properties.nodeSetup.setupTask"
	if t.Line.s == "" {
		r.wrong(t.At, at+".commandLine", "", "the setup has no command line")
		return
	}
	lines := []string{"export AZ_BATCHAI_MOUNT_ROOT=" + ClusterRoot}
	for i, v := range t.Environment {
		if !identifier.MatchString(v.Name.s) {
			r.wrong(v.At, fmt.Sprintf("%s.environmentVariables[%d].name", at, i), "use letters, digits and _", "%q cannot be a variable", clip(v.Name.s))
			continue
		}
		lines = append(lines, "export "+v.Name.s+"="+shellWord(v.Value.s))
	}
	for i, s := range t.Secrets {
		path := fmt.Sprintf("%s.secrets[%d]", at, i)
		if s.Value.s != "" {
			r.inline(s.Value.at, path+".value")
			continue
		}
		r.liberty(s.At, path, "read it from a share in the setup's command", "it is left out", "a pool's setup has no secrets in this version of Shoal")
	}
	if t.StdOutErr.s != "" {
		r.note(t.StdOutErr.at, "setupTask.stdOutErrPathPrefix: the setup's log is kept with the machine; `shoal why machine ID` shows its end")
	}
	c.Pool.Setup = &shoal.Setup{Command: strings.Join(append(lines, t.Line.s), "\n")}
}
