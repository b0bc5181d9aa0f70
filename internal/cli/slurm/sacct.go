package slurm

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// sacct lists jobs and what became of them, those that have ended as well.
func (c *command) sacct(ctx context.Context, args []string) error {
	f := c.flags()
	var ids, users, names, pools, states []string
	f.StringArrayVarP(&ids, "jobs", "j", nil, "")
	f.StringArrayVarP(&users, "user", "u", nil, "")
	f.StringArrayVar(&names, "name", nil, "")
	f.StringArrayVarP(&pools, "partition", "r", nil, "")
	f.StringArrayVarP(&states, "state", "s", nil, "")
	format := f.StringP("format", "o", or(c.Getenv("SACCT_FORMAT"), "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"), "")
	noHeader := f.BoolP("noheader", "n", false, "")
	parsable := f.BoolP("parsable", "p", false, "")
	parsable2 := f.BoolP("parsable2", "P", false, "")
	delimiter := f.String("delimiter", "|", "")
	whole := f.BoolP("allocations", "X", false, "")
	all := f.BoolP("allusers", "a", false, "")
	brief := f.BoolP("brief", "b", false, "")
	start := f.StringP("starttime", "S", "", "")
	end := f.StringP("endtime", "E", "", "")
	accounts := f.StringArrayP("accounts", "A", nil, "")
	long := f.BoolP("long", "l", false, "")
	list := f.BoolP("helpformat", "e", false, "")
	for _, name := range []string{"clusters/M", "units"} {
		full, short, _ := strings.Cut(name, "/")
		f.StringP(full, short, "", "")
	}
	for _, name := range []string{"duplicates/D", "truncate/T", "array", "local/L"} {
		full, short, _ := strings.Cut(name, "/")
		f.BoolP(full, short, false, "")
	}
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	switch {
	case *list:
		for _, k := range c.sacctFields() {
			c.say("%s", k.title)
		}
		return nil
	case *brief:
		*format = "JobID,State,ExitCode"
	case *long:
		*format = "JobID,JobName,Partition,MaxVMSize,MaxRSS,AveRSS,AveCPU,NTasks,AllocCPUS,Elapsed,State,ExitCode,ReqMem,ReqTRES,AllocTRES"
	}
	columns, err := c.sacctColumns(*format)
	if err != nil {
		return err
	}
	s := selection{ids: words(ids...), users: words(users...), names: words(names...), pools: words(pools...), states: words(states...), history: true}
	s.account = words(*accounts...)
	if s.since, err = c.startTime(*start); err != nil {
		return err
	}
	if *end != "" {
		if s.until, err = c.startTime(*end); err != nil {
			return err
		}
	}
	to, err := c.Connect()
	if err != nil {
		return err
	}
	if len(s.ids) == 0 && len(s.users) == 0 && !*all {
		if s.users, err = c.mine(ctx, to); err != nil {
			return err
		}
	}
	found, err := c.find(ctx, to, s)
	if err != nil {
		return err
	}
	if !*whole {
		found = withSteps(found)
	}
	if !*parsable && !*parsable2 {
		c.sacctTable(columns, found, !*noHeader)
		return nil
	}
	c.parsable(columns, found, !*noHeader, *delimiter, *parsable)
	return nil
}

// parsable writes rows for programs: what is between the cells stands, if wanted, at the end as well.
func (c *command) parsable(columns []column[row], found []row, header bool, between string, closed bool) {
	last := ""
	if closed {
		last = between
	}
	line := func(cell func(column[row]) string) {
		cells := make([]string, len(columns))
		for i, k := range columns {
			cells[i] = cell(k)
		}
		c.say("%s%s", strings.Join(cells, between), last)
	}
	if header {
		line(func(k column[row]) string { return k.title })
	}
	for _, r := range found {
		line(func(k column[row]) string { return k.value(r) })
	}
}

// mine is the caller alone; for root on the server's host, everybody.
func (c *command) mine(ctx context.Context, to *client.Client) ([]string, error) {
	user, err := c.user(ctx, to)
	if err != nil || user == "root" {
		return nil, err
	}
	return []string{string(user)}, nil
}

// sacctTable writes the table for people, with a rule below the titles.
func (c *command) sacctTable(columns []column[row], found []row, header bool) {
	for i := range columns {
		columns[i].suffix, columns[i].right = " ", columns[i].width >= 0 && columns[i].title != "JobID"
		if columns[i].width < 0 {
			columns[i].width = -columns[i].width
		}
	}
	table(c.Stdout, columns, nil, header)
	if header {
		rules := make([]column[row], len(columns))
		for i, k := range columns {
			rules[i] = column[row]{title: strings.Repeat("-", k.width), suffix: " "}
		}
		table(c.Stdout, rules, nil, true)
	}
	table(c.Stdout, columns, found, false)
}

// batchStep marks the row of the batch script itself, which Slurm counts apart from its job.
const batchStep = ".batch"

func withSteps(found []row) []row {
	var all []row
	for _, r := range found {
		all = append(all, r)
		if r.task != nil && r.task.Attempt > 0 && !r.started().IsZero() {
			r.id += batchStep
			all = append(all, r)
		}
	}
	return all
}

// startTime reads -S; without it, since midnight.
func (c *command) startTime(s string) (time.Time, error) {
	now := c.Now().Local()
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	if s == "" {
		return midnight, nil
	}
	if back, ok := strings.CutPrefix(s, "now-"); ok {
		digits := strings.TrimRight(back, "abcdefghijklmnopqrstuvwxyz")
		n, err := strconv.ParseUint(digits, 10, 31)
		unit, known := map[string]time.Duration{"": time.Second, "seconds": time.Second, "minutes": time.Minute, "hours": time.Hour,
			"days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour}[back[len(digits):]]
		if err == nil && known {
			return now.Add(-time.Duration(n) * unit), nil
		}
	}
	switch s {
	case "now":
		return now, nil
	case "today", "midnight":
		return midnight, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "01/02/06", "15:04:05", "15:04"} {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err != nil {
			continue
		}
		if t.Year() == 0 {
			t = midnight.Add(t.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, now.Location())))
		}
		return t, nil
	}
	return midnight, shoal.Errorf(shoal.KindInvalid, "Invalid time specification %q", s).WithHint("write 2006-01-02, 2006-01-02T15:04 or now-2days")
}

// sacctColumns reads a list of fields such as "JobID%20,State": a width after %, left-aligned if negative.
func (c *command) sacctColumns(format string) ([]column[row], error) {
	known := c.sacctFields()
	var all []column[row]
	for _, word := range words(format) {
		name, width, sized := strings.Cut(word, "%")
		i := slices.IndexFunc(known, func(k column[row]) bool { return strings.EqualFold(k.title, name) })
		if i < 0 {
			return nil, shoal.Errorf(shoal.KindInvalid, "Invalid field requested: %q", name).WithHint("`sacct --helpformat` lists them")
		}
		k := known[i]
		if sized {
			n, err := strconv.Atoi(width)
			if err != nil || n == 0 || n > 1000 || n < -1000 {
				return nil, shoal.Errorf(shoal.KindInvalid, "Invalid field width: %q", word)
			}
			k.width = n
		}
		all = append(all, k)
	}
	return all, nil
}

func (c *command) sacctFields() []column[row] {
	now := c.Now()
	step := func(r row) bool { return strings.HasSuffix(r.id, batchStep) }
	only := func(f func(row) string) func(row) string { // what the step's row leaves empty
		return func(r row) string {
			if step(r) {
				return ""
			}
			return f(r)
		}
	}
	measured := func(f func(*shoal.Attempt) string) func(row) string { // what only the step's row has
		return func(r row) string {
			if !step(r) || r.task == nil {
				return ""
			}
			return f(r.task)
		}
	}
	cpu := func(r row) string {
		if r.task == nil {
			return "00:00:00"
		}
		return elapsed(time.Duration(r.task.CPUTime), false)
	}
	id := func(r row) string { return r.id }
	nodes := func(r row) string { return strconv.Itoa(r.nodes()) }
	rss := measured(func(a *shoal.Attempt) string { return fmt.Sprintf("%dK", a.MaxMemory>>10) })
	return []column[row]{
		{title: "JobID", width: 12, value: id}, {title: "JobIDRaw", width: 12, value: id},
		{title: "JobName", width: 10, value: func(r row) string {
			if step(r) {
				return "batch"
			}
			return r.job.Spec.Name
		}},
		{title: "Partition", width: 10, value: only(func(r row) string { return string(r.job.Spec.Pool) })},
		{title: "Account", width: 10, value: func(r row) string { return r.job.Spec.Labels["account"] }},
		{title: "User", width: 9, value: only(func(r row) string { return string(r.job.User) })},
		{title: "State", width: 10, value: func(r row) string { s, _ := stateOf(r.state, r.cause()); return s }},
		{title: "ExitCode", width: 8, value: row.exit}, {title: "DerivedExitCode", width: 15, value: only(row.exit)},
		{title: "AllocCPUS", width: 10, value: func(r row) string { return strconv.Itoa(r.cpus()) }},
		{title: "NCPUS", width: 10, value: func(r row) string { return strconv.Itoa(r.cpus()) }},
		{title: "ReqCPUS", width: 8, value: func(r row) string { return strconv.Itoa(r.cpus()) }},
		{title: "NNodes", width: 8, value: nodes}, {title: "AllocNodes", width: 10, value: nodes}, {title: "ReqNodes", width: 8, value: nodes},
		{title: "AllocTRES", width: 10, value: row.tres}, {title: "ReqTRES", width: 10, value: only(row.tres)},
		{title: "NTasks", width: 8, value: measured(func(*shoal.Attempt) string { return "1" })},
		{title: "NodeList", width: 15, value: func(r row) string { return or(r.machine, "None assigned") }},
		{title: "ReqMem", width: 10, value: only(func(r row) string { return megabytes(r.job.Spec.Resources.Memory) })},
		{title: "MaxRSS", width: 10, value: rss}, {title: "AveRSS", width: 10, value: rss}, {title: "MaxVMSize", width: 10, value: rss}, {title: "AveVMSize", width: 10, value: rss},
		{title: "AveCPU", width: 10, value: measured(func(a *shoal.Attempt) string { return elapsed(time.Duration(a.CPUTime), false) })},
		{title: "Timelimit", width: 10, value: only(row.limit)},
		{title: "TimelimitRaw", width: 10, value: only(row.minutes)},
		{title: "Cluster", width: 10, value: func(row) string { return "shoal" }},
		{title: "Group", width: 9, value: only(func(r row) string { return string(r.job.User) })},
		{title: "Priority", width: 10, value: only(func(r row) string { return strconv.Itoa(rank(r.job.Spec.Priority)) })},
		{title: "Elapsed", width: 10, value: func(r row) string { return elapsed(r.took(now), false) }},
		{title: "ElapsedRaw", width: 10, value: func(r row) string { return strconv.Itoa(int(r.took(now) / time.Second)) }},
		{title: "TotalCPU", width: 10, value: cpu}, {title: "UserCPU", width: 10, value: cpu}, {title: "SystemCPU", width: 10, value: func(row) string { return "00:00:00" }},
		{title: "CPUTime", width: 10, value: func(r row) string { return elapsed(r.took(now)*time.Duration(r.cpus()), false) }},
		{title: "CPUTimeRAW", width: 10, value: func(r row) string { return strconv.Itoa(int(r.took(now)/time.Second) * r.cpus()) }},
		{title: "Submit", width: 19, value: func(r row) string { return stamp(r.job.Submitted, "Unknown") }},
		{title: "Eligible", width: 19, value: func(r row) string { return stamp(r.job.Submitted, "Unknown") }},
		{title: "Start", width: 19, value: func(r row) string { return stamp(r.started(), "Unknown") }},
		{title: "End", width: 19, value: func(r row) string { return stamp(r.ended(), "Unknown") }},
		{title: "Reason", width: 22, value: only(row.reason)}, {title: "WorkDir", width: 20, value: only(func(r row) string { return r.job.Spec.Workdir })},
		{title: "Comment", width: 14, value: only(func(r row) string { return r.job.Spec.Labels["comment"] })},
		{title: "QOS", width: 10, value: only(func(r row) string { return or(r.job.Spec.Labels["qos"], "normal") })},
		{title: "Restarts", width: 8, value: func(r row) string {
			if r.task == nil {
				return "0"
			}
			return strconv.Itoa(max(r.task.Attempt-1, 0))
		}},
	}
}
