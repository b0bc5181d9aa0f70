package slurm

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoal-pool/shoal"
)

// flags begins the options of a command that asks.
func (c *command) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

func badOption(err error) error { return shoal.Errorf(shoal.KindInvalid, "%w", err) }

// squeue lists jobs that have not ended.
func (c *command) squeue(ctx context.Context, args []string) error {
	f := c.flags()
	var s selection
	var ids, users, names, pools, states []string
	f.StringArrayVarP(&ids, "jobs", "j", nil, "")
	f.StringArrayVarP(&users, "user", "u", nil, "")
	f.StringArrayVarP(&names, "name", "n", nil, "")
	f.StringArrayVarP(&pools, "partition", "p", nil, "")
	f.StringArrayVarP(&states, "states", "t", nil, "")
	me := f.Bool("me", false, "")
	noHeader := f.BoolP("noheader", "h", false, "")
	asked := f.StringP("format", "o", c.Getenv("SQUEUE_FORMAT"), "")
	long := f.BoolP("long", "l", false, "")
	fields := f.StringP("Format", "O", c.Getenv("SQUEUE_FORMAT2"), "")
	starts := f.Bool("start", false, "")
	accounts := f.StringArrayP("account", "A", nil, "")
	for _, name := range []string{"array/r", "all/a", "verbose/v", "hide"} {
		full, short, _ := strings.Cut(name, "/")
		f.BoolP(full, short, false, "")
	}
	for _, name := range []string{"sort/S", "clusters/M", "qos/q"} {
		full, short, _ := strings.Cut(name, "/")
		f.StringP(full, short, "", "")
	}
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	s.ids, s.users, s.names, s.pools, s.states = words(ids...), words(users...), words(names...), words(pools...), words(states...)
	s.account = words(*accounts...)
	if *starts {
		s.states = []string{"PD"}
	}
	if slices.ContainsFunc(s.states, func(t string) bool { return strings.EqualFold(t, "all") }) {
		s.states, s.history = nil, true
	}
	for _, t := range s.states { // ended ones are shown only when asked for
		switch strings.ToUpper(t) {
		case "PD", "PENDING", "R", "RUNNING", "CF", "CONFIGURING", "CG", "COMPLETING", "S", "SUSPENDED":
		default:
			s.history = true
		}
	}
	to, err := c.Connect()
	if err != nil {
		return err
	}
	if *me {
		user, err := c.user(ctx, to)
		if err != nil {
			return err
		}
		s.users = []string{string(user)}
	}
	format := *asked
	switch {
	case format != "":
	case *starts:
		format = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"
	case *long:
		format = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
	default:
		format = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
	}
	columns, err := parseFormat(format, c.squeueColumns(), column[row]{title: "?", value: func(row) string { return "N/A" }})
	if *fields != "" {
		columns, err = c.squeueFields(*fields)
	}
	if err != nil {
		return err
	}
	all, err := c.find(ctx, to, s)
	if err != nil {
		return err
	}
	if len(s.ids) == 1 && len(all) == 0 { // as Slurm does, for scripts that ask until a job is gone
		return shoal.Errorf(shoal.KindNotFound, "Invalid job id specified")
	}
	table(c.Stdout, columns, all, !*noHeader)
	return nil
}

// squeueColumns are the letters of squeue's --format.
func (c *command) squeueColumns() map[byte]column[row] {
	now := c.Now()
	user := func(r row) string { return string(r.job.User) }
	return map[byte]column[row]{
		'i': {title: "JOBID", value: func(r row) string { return r.id }},
		'A': {title: "JOBID", value: func(r row) string { return string(r.job.ID) }},
		'F': {title: "ARRAY_JOB_ID", value: func(r row) string { return string(r.job.ID) }},
		'K': {title: "ARRAY_TASK_ID", value: func(r row) string {
			if _, index, ok := strings.Cut(r.id, "_"); ok {
				return strings.Trim(index, "[]")
			}
			return "N/A"
		}},
		'P': {title: "PARTITION", value: func(r row) string { return string(r.job.Spec.Pool) }},
		'j': {title: "NAME", value: func(r row) string { return r.job.Spec.Name }},
		'u': {title: "USER", value: user},
		'U': {title: "USER", value: user},
		'a': {title: "ACCOUNT", value: func(r row) string { return or(r.job.Spec.Labels["account"], "(null)") }},
		't': {title: "ST", value: func(r row) string { _, s := stateOf(r.state, r.cause()); return s }},
		'T': {title: "STATE", value: func(r row) string { s, _ := stateOf(r.state, r.cause()); return s }},
		'M': {title: "TIME", value: func(r row) string { return elapsed(r.took(now), true) }},
		'l': {title: "TIME_LIMIT", value: row.limit},
		'L': {title: "TIME_LEFT", value: func(r row) string {
			if r.job.Spec.TimeLimit == 0 {
				return "UNLIMITED"
			}
			return elapsed(time.Duration(r.job.Spec.TimeLimit)-r.took(now), true)
		}},
		'D': {title: "NODES", value: func(r row) string { return strconv.Itoa(r.nodes()) }},
		'C': {title: "CPUS", value: func(r row) string { return strconv.Itoa(r.cpus()) }},
		'm': {title: "MIN_MEMORY", value: func(r row) string { return megabytes(r.job.Spec.Resources.Memory) }},
		'N': {title: "NODELIST", value: func(r row) string { return r.machine }},
		'B': {title: "EXEC_HOST", value: func(r row) string { return or(first(r.machine), "n/a") }},
		'r': {title: "REASON", value: row.reason},
		'R': {title: "NODELIST(REASON)", value: func(r row) string {
			if r.state == shoal.JobQueued {
				return "(" + r.reason() + ")"
			}
			return r.machine
		}},
		'S': {title: "START_TIME", value: func(r row) string {
			if t := r.started(); !t.IsZero() {
				return stamp(t, "N/A")
			}
			return stamp(r.job.Promised, "N/A")
		}},
		'e': {title: "END_TIME", value: func(r row) string { return stamp(r.ended(), "N/A") }},
		'V': {title: "SUBMIT_TIME", value: func(r row) string { return stamp(r.job.Submitted, "N/A") }},
		'Z': {title: "WORK_DIR", value: func(r row) string { return r.job.Spec.Workdir }},
		'E': {title: "DEPENDENCY", value: func(r row) string { return or(dependencyOf(r.job.Spec.After), "(null)") }},
		'Q': {title: "PRIORITY", value: func(r row) string { return strconv.Itoa(rank(r.job.Spec.Priority)) }},
		'p': {title: "PRIORITY", value: func(r row) string { return fmt.Sprintf("%.14f", float64(rank(r.job.Spec.Priority))/1000) }},
		'Y': {title: "SCHEDNODES", value: func(row) string { return "(null)" }},
		'k': {title: "COMMENT", value: func(r row) string { return or(r.job.Spec.Labels["comment"], "(null)") }},
		'q': {title: "QOS", value: func(r row) string { return or(r.job.Spec.Labels["qos"], "normal") }},
		'b': {title: "TRES_PER_NODE", value: func(r row) string {
			if n := r.job.Spec.Resources.GPUs; n > 0 {
				return fmt.Sprintf("gres:gpu:%d", n)
			}
			return "N/A"
		}},
	}
}

// squeueFields reads a list of fields such as "JobID:.8,State": a width after a colon, right-aligned after a point.
func (c *command) squeueFields(format string) ([]column[row], error) {
	letters := map[string]byte{"jobarrayid": 'i', "jobid": 'A', "arrayjobid": 'F', "arraytaskid": 'K', "partition": 'P', "name": 'j', "username": 'u', "account": 'a',
		"statecompact": 't', "state": 'T', "timeused": 'M', "timelimit": 'l', "timeleft": 'L', "numnodes": 'D', "numcpus": 'C', "minmemory": 'm', "nodelist": 'N',
		"batchhost": 'B', "reason": 'r', "reasonlist": 'R', "starttime": 'S', "endtime": 'e', "submittime": 'V', "workdir": 'Z', "dependency": 'E', "prioritylong": 'Q',
		"priority": 'p', "comment": 'k', "qos": 'q', "tres-per-node": 'b', "gres": 'b'}
	known := c.squeueColumns()
	var all []column[row]
	for _, word := range words(format) {
		name, size, _ := strings.Cut(word, ":")
		size, right := strings.CutPrefix(size, ".")
		width, err := strconv.Atoi(or(size, "20"))
		letter, ok := letters[strings.ToLower(name)]
		if !ok || err != nil || width < 1 || width > 1000 {
			return nil, shoal.Errorf(shoal.KindInvalid, "Invalid job format specification: %s", word).WithHint("there are %s", strings.Join(slices.Sorted(maps.Keys(letters)), ", "))
		}
		k := known[letter]
		k.width, k.right = width, right
		all = append(all, k)
	}
	return all, nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// rank is a priority as a number.
func rank(priority string) int {
	switch priority {
	case "low":
		return 1
	case "high":
		return 999
	}
	return 100
}

// dependencyOf writes dependencies as --dependency has them.
func dependencyOf(after []shoal.Dependency) string {
	var all []string
	for _, d := range after {
		kind := "afterok"
		switch {
		case d.Task == shoal.Corresponding:
			kind = "aftercorr"
		case d.Condition == shoal.AfterAny:
			kind = "afterany"
		case d.Condition == shoal.AfterFailed:
			kind = "afternotok"
		}
		all = append(all, kind+":"+d.Job)
	}
	return strings.Join(all, ",")
}
