package engine

import (
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
)

// warned is what people on a machine have been told of its end.
type warned struct {
	at   time.Time // the end
	left int       // how many times it is to be told once more
}

// timesBefore are how long before the end of a machine people are told once more.
var timesBefore = [...]time.Duration{time.Hour, 15 * time.Minute, 5 * time.Minute, time.Minute}

// warn tells people on a machine when it ends with whoever is there: at once, and again as that comes nearer.
func (j *judging) warn(r *row) {
	was := j.mem.warned[r.ID]
	at, why := r.Ends()
	if at.IsZero() {
		if !was.at.IsZero() && j.now.Before(was.at) {
			j.told[r.ID] = warned{}
			j.say(r.ID, "shoal: this machine, %s, stays after all.", r.ID)
		}
		return
	}
	left := 0 // how many of those times are to come
	for _, d := range timesBefore {
		if t := at.Add(-d); j.now.Before(t) {
			j.due(t, j.now)
			left++
		}
	}
	if was.at.Equal(at) && was.left == left {
		return
	}
	j.told[r.ID] = warned{at, left}
	if j.People[r.ID].Sessions == 0 || !j.now.Before(at) {
		return
	}
	rest := at.Sub(j.now).Round(time.Second)
	if rest > 2*time.Minute {
		rest = rest.Round(time.Minute)
	}
	j.say(r.ID, "shoal: this machine, %s, ends in %s, at %s, with all that runs on it: %s. Please save your work and log out; your next login leads to another machine.",
		r.ID, shoal.Duration(rest), at.UTC().Format("15:04 MST"), why)
}

// say has something written to all terminals on a machine once the pass is on record.
func (j *judging) say(id shoal.MachineID, format string, args ...any) {
	j.says = append(j.says, saying{id, fmt.Sprintf(format, args...)})
}

// saying is something to be written to all terminals on a machine.
type saying struct {
	machine shoal.MachineID
	text    string
}
