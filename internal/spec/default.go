package spec

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// The defaults of objects, all of them. Each Default function fills in what is zero and cannot mean
// zero; doing it twice is doing it once.

// newPool is a pool before its document is read: the defaults that depend on nothing. A zero that
// is written stays a zero, and is a mistake where it makes no sense.
func newPool() shoal.Pool {
	return shoal.Pool{
		Provider:  "local",
		Uses:      []shoal.Use{shoal.UseInteractive, shoal.UseBatch},
		Machine:   shoal.Resources{CPUs: 1000, Memory: 1 << 30},
		Size:      shoal.Size{Max: 1},
		Seats:     8,
		Placement: shoal.PlaceSpread,
		Scale:     shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute)}},
	}
}

// DefaultPool completes a pool that was not read from a document. A size of zero stays one.
func DefaultPool(p *shoal.Pool) {
	d := newPool()
	fill(&p.Provider, d.Provider)
	if p.Uses == nil {
		p.Uses = d.Uses
	}
	fill(&p.Machine.CPUs, d.Machine.CPUs)
	fill(&p.Machine.Memory, d.Machine.Memory)
	fill(&p.Seats, d.Seats)
	fill(&p.Placement, d.Placement)
	fill(&p.Scale.Idle.After, d.Scale.Idle.After)
	completePool(p)
}

// completePool fills in what depends on other fields.
func completePool(p *shoal.Pool) {
	if p.Provider == "local" || p.Provider == "fake" {
		fill(&p.Image, "host")
	}
	if p.OS == "linux" {
		p.OS = "" // one way to say it
	}
	if p.Home.Layout == shoal.LayoutDSVM && p.Home.Share == "" && len(p.Mounts) == 1 {
		p.Home.Share = p.Mounts[0].Share
	}
	if p.Home.Share != "" && p.Home.Layout == "" {
		fill(&p.Home.Path, "home/{user}")
	}
	if p.Setup != nil {
		fill(&p.Setup.Timeout, shoal.Duration(5*time.Minute))
	}
	for i := range p.Endpoints {
		completeEndpoint(&p.Endpoints[i])
	}
	completeScale(&p.Scale)
	fill(&p.Scale.Idle.Warn, min(shoal.Duration(5*time.Minute), p.Scale.Idle.After))
}

// completeEndpoint fills in what an endpoint's protocol leaves open. Probes are the article's: every 15 seconds,
// and two that fail make an app ill. What listens at a port of tcp may be there only now and then: it is asked where the
// pool says so.
func completeEndpoint(e *shoal.Endpoint) {
	fill(&e.Affinity, shoal.AffinityUser)
	fill(&e.Share, "private")
	if e.Protocol == shoal.ProtocolRDP {
		fill(&e.Port, 3389)
	}
	if e.Protocol != shoal.ProtocolHTTP {
		fill(&e.Listen, e.Port)
	}
	if e.Ready == nil && e.Protocol != shoal.ProtocolTCP {
		e.Ready = new(shoal.Probe)
	}
	switch {
	case e.Ready == nil:
	case e.Protocol == shoal.ProtocolHTTP:
		CompleteProbe(e.Ready)
	default:
		timeProbe(e.Ready)
	}
}

// CompleteProbe fills in what a probe leaves open.
func CompleteProbe(p *shoal.Probe) {
	fill(&p.Path, "/")
	timeProbe(p)
}

func timeProbe(p *shoal.Probe) {
	fill(&p.Interval, shoal.Duration(15*time.Second))
	fill(&p.Timeout, shoal.Duration(2*time.Minute))
	fill(&p.Threshold, 2)
}

// DefaultShare completes a share.
func DefaultShare(s *shoal.Share) {
	for i := range s.GroupDirs {
		fill(&s.GroupDirs[i].Mode, "2770")
	}
}

// DefaultUser completes a user. The uid is given out by the server.
func DefaultUser(u *shoal.User) {
	fill(&u.Role, shoal.RoleMember)
	fill(&u.Shell, "/bin/bash")
}

// newJob is a job before its document is read; see newPool. What each task needs is left open: FitJob
// says it once the pool is known.
func newJob() shoal.JobSpec {
	return shoal.JobSpec{
		Nodes:    shoal.Fixed(1),
		Launcher: "each",
		Share:    "private",
		Priority: "normal",
	}
}

// DefaultJob completes a job that was not read from a document.
func DefaultJob(j *shoal.JobSpec) {
	d := newJob()
	fill(&j.Nodes, d.Nodes)
	fill(&j.Launcher, d.Launcher)
	fill(&j.Share, d.Share)
	fill(&j.Priority, d.Priority)
}

// FitJob says what each task of a job gets that does not ask for it: a processor and 512 MiB, or all
// that a smaller machine has. Batch AI gave its jobs whole machines.
func FitJob(j *shoal.JobSpec, machine shoal.Resources) {
	if j.Dialect == "batchai" && j.Resources == (shoal.Resources{}) {
		j.Resources = machine
	}
	fill(&j.Resources.CPUs, min(1000, machine.CPUs))
	fill(&j.Resources.Memory, min(512<<20, machine.Memory))
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
