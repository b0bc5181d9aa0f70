package engine

import (
	"fmt"
	"slices"

	"github.com/shoal-pool/shoal"
)

// troubled keeps new users and tasks off a machine of which its provider tells trouble, such as a share that does not answer, until
// that is over. The machine stays: another would have the same trouble.
func (j *judging) troubled(r *row) {
	seen := j.mem.sights[r.Provider].seen
	if seen == nil {
		return
	}
	o, ok := seen.Machines[r.ID]
	if !ok {
		return
	}
	at := slices.IndexFunc(r.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonProvider })
	switch {
	case o.Trouble == "" && at >= 0:
		j.set(r, uncordon(r.Machine, shoal.CordonProvider), fmt.Sprintf("machine %s of pool %s is out of trouble, as its provider says", r.ID, r.Pool))
	case o.Trouble != "" && at < 0:
		j.set(r, cordon(r.Machine, shoal.Cordon{Owner: shoal.CordonProvider, Reason: o.Trouble, Since: j.now}),
			fmt.Sprintf("machine %s of pool %s takes nobody new: %s", r.ID, r.Pool, o.Trouble))
	case o.Trouble != "" && r.Cordons[at].Reason != o.Trouble:
		j.set(r, cordon(r.Machine, shoal.Cordon{Owner: shoal.CordonProvider, Reason: o.Trouble, Since: r.Cordons[at].Since}), "")
	}
}
