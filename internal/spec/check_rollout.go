package spec

import (
	"time"

	"github.com/shoal-pool/shoal"
)

const maxRollout = shoal.Duration(365 * 24 * time.Hour)

// rollout checks how old machines are replaced, and those that do not work.
func (c *checks) rollout(p shoal.Pool) {
	if n := p.Rollout.Surge; n != nil {
		c.within("rollout.surge", *n, 0, maxMachines)
	}
	if d := p.Rollout.Deadline; d < 0 || d > maxRollout {
		c.wrong("rollout.deadline", "leave it out, and old machines go when nobody is on them", "%s is not between 0 and %s", d, maxRollout)
	} else if d > 0 && d < shoal.Duration(time.Minute) {
		c.wrong("rollout.deadline", "write 1m or more", "%s is too short for people to leave", d)
	}
	c.within("repair.atOnce", p.Repair.AtOnce, 0, maxMachines)
	c.within("repair.tries", p.Repair.Tries, 0, 1000)
}
