package slurm

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
)

// populated is a world with a job that waits, an array that runs, and jobs that have ended.
func populated(t *testing.T) *world {
	w := newWorld(t)
	at := func(h, m int) time.Time { return time.Date(2026, 3, 2, h, m, 0, 0, time.Local) }
	job := func(id shoal.JobID, name string, state shoal.JobState, c shoal.Counts) shoal.Job {
		return shoal.Job{ID: id, User: "alice", State: state, Counts: c, Submitted: at(12, 0), Ended: at(14, 0),
			Spec: shoal.JobSpec{Name: name, Pool: "lab", Workdir: "/shared/work", Resources: shoal.Resources{CPUs: 2000, Memory: 2 << 30}}}
	}
	attempt := func(id shoal.JobID, index int, state shoal.JobState) shoal.Attempt {
		a := shoal.Attempt{Machine: "m-aaa", State: state, Started: at(13, 0), MaxMemory: 100 << 20, CPUTime: shoal.Duration(90 * time.Second)}
		a.Job, a.Index, a.Attempt = id, index, 1
		if state.Ended() {
			a.Ended = at(13, 30)
		}
		return a
	}
	waits := job("9", "late", shoal.JobQueued, shoal.Counts{Queued: 1})
	waits.Blocked, waits.Spec.After = true, []shoal.Dependency{{Job: "10"}}
	array := job("10", "sweep", shoal.JobRunning, shoal.Counts{Running: 1, Succeeded: 1, Queued: 3})
	array.Spec.Array, array.Next, array.Spec.MaxRunning = "1-5", 2, 2
	w.tasks["10"] = []shoal.Attempt{attempt("10", 1, shoal.JobSucceeded), attempt("10", 2, shoal.JobRunning)}
	oom := attempt("11", 0, shoal.JobFailed)
	oom.Cause, oom.ExitCode, oom.Signal = shoal.CauseOOM, 137, 9
	w.tasks["11"] = []shoal.Attempt{oom}
	failed := attempt("12", 0, shoal.JobFailed)
	failed.Cause, failed.ExitCode = shoal.CauseExit, 3
	w.tasks["12"] = []shoal.Attempt{failed}
	done := job("11", "hungry", shoal.JobFailed, shoal.Counts{Failed: 1})
	done.Next = 1
	bad := job("12", "bad", shoal.JobFailed, shoal.Counts{Failed: 1})
	bad.Next = 1
	some := job("13", "some", shoal.JobCancelled, shoal.Counts{Succeeded: 1, Cancelled: 2}) // two of its tasks never began
	some.Spec.Array, some.Next = "1-3", 1
	w.tasks["13"] = []shoal.Attempt{attempt("13", 1, shoal.JobSucceeded)}
	w.jobs = []shoal.Job{waits, array, done, bad, some}
	return w
}

func TestSqueue(t *testing.T) {
	t.Parallel()
	w := populated(t)
	for _, c := range []struct{ args, want string }{
		{"", `             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)
                 9       lab     late    alice PD       0:00      1 (Dependency)
              10_2       lab    sweep    alice  R    2:00:00      1 m-aaa
        10_[3-5%2]       lab    sweep    alice PD       0:00      1 (Resources)
`},
		{"-h -j 10 -o %i|%T|%M", "10_2|RUNNING|2:00:00\n10_[3-5%2]|PENDING|0:00\n"},
		{"-h -j 10_4 -o %A,%K", "10,3-5%2\n"},
		{"-h -t R -o %.6i", "  10_2\n"},
		{"-h -n late --format=%E", "afterok:10\n"},
		{"-h -u bob", ""},
		{"-h -A phys", ""},
		{"--noh -O jobid:.4,state:9,timeused -j 10", "  10RUNNING  2:00:00\n  10PENDING  0:00\n"},
		{"--start -h -o %i,%S", "9,N/A\n10_[3-5%2],N/A\n"},
		{"-h --me -t all -o %i:%t", "9:PD\n10_1:CD\n10_2:R\n10_[3-5%2]:PD\n11:OOM\n12:F\n13_1:CD\n13_[2-3]:CA\n"},
	} {
		code, out, errs := w.run("", "squeue", strings.Fields(c.args)...)
		if diff := cmp.Diff(c.want, out); code != 0 || diff != "" {
			t.Errorf("squeue %s: %d %s\n%s", c.args, code, errs, diff)
		}
	}
	w.jobs[1].Spec.MaxRunning = 1
	if code, out, errs := w.run("", "squeue", "-h", "-j", "10", "-t", "PD", "-o", "%R"); code != 0 || out != "(JobArrayTaskLimit)\n" {
		t.Errorf("as many run as may: %d %q %s", code, out, errs)
	}
	if code, _, errs := w.run("", "squeue", "-O", "jobid,what"); code != 1 || !strings.Contains(errs, "Invalid job format specification: what") {
		t.Errorf("an unknown field: %d %q", code, errs)
	}
	if code, _, errs := w.run("", "squeue", "-j", "12"); code != 1 || !strings.Contains(errs, "Invalid job id specified") {
		t.Errorf("a job that has ended: %d %q", code, errs)
	}
}

func TestSacct(t *testing.T) {
	t.Parallel()
	w := populated(t)
	for _, c := range []struct{ args, want string }{
		{"-X -n -P -o JobIDRaw,State,ExitCode", "9|PENDING|0:0\n10_1|COMPLETED|0:0\n10_2|RUNNING|0:0\n10_[3-5%2]|PENDING|0:0\n11|OUT_OF_MEMORY|0:9\n12|FAILED|3:0\n" +
			"13_1|COMPLETED|0:0\n13_[2-3]|CANCELLED|0:0\n"},
		{"-j 12 -P --format=JobID,State,MaxRSS,Elapsed", "JobID|State|MaxRSS|Elapsed\n12|FAILED||00:30:00\n12.batch|FAILED|102400K|00:30:00\n"},
		{"-j 99 -n", ""},
		{"-j 10_1 -X -n -p -o jobid,totalcpu", "10_1|00:01:30|\n"},
		{"-j 12 -X -o JobID%5,State%-8", "JobID State\n----- --------\n12    FAILED\n"},
		{"-j 12 -X -n -P -o AllocTRES,AllocNodes,TimelimitRaw", "billing=2,cpu=2,mem=2G,node=1|1|UNLIMITED\n"},
		{"-j 13 -X -n -P -o JobID,State,ExitCode", "13_1|COMPLETED|0:0\n13_[2-3]|CANCELLED|0:0\n"},
		{"-X -n -P -E 11:00 -o JobID", ""},
		{"-X -n -P -S now-30minutes -s F -o JobID", ""},
		{"-X -n -P -S 13:00 -s F,OOM -o JobID", "11\n12\n"},
	} {
		code, out, errs := w.run("", "sacct", strings.Fields(c.args)...)
		if diff := cmp.Diff(c.want, out); code != 0 || diff != "" {
			t.Errorf("sacct %s: %d %s\n%s", c.args, code, errs, diff)
		}
	}
	for _, args := range []string{"-o What", "-o State%x", "-S never"} {
		if code, _, errs := w.run("", "sacct", strings.Fields(args)...); code != 1 || !strings.Contains(errs, "sacct: error: Invalid") {
			t.Errorf("sacct %s: %d %q", args, code, errs)
		}
	}
}

func TestScontrol(t *testing.T) {
	t.Parallel()
	w := populated(t)
	code, out, errs := w.run("", "scontrol", "show", "job", "12")
	for _, want := range []string{"JobId=12 JobName=bad", "\n   JobState=FAILED Reason=None Dependency=(null)", "ExitCode=3:0", "RunTime=00:30:00 TimeLimit=UNLIMITED", "NodeList=m-aaa", "WorkDir=/shared/work"} {
		if !strings.Contains(out, want) {
			t.Errorf("%d %q lacks %q:\n%s", code, errs, want, out)
		}
	}
	if code, out, _ := w.run("", "scontrol", "-o", "show", "jobid", "-dd", "10_2"); code != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "JobId=10 ArrayJobId=10 ArrayTaskId=2 ") {
		t.Errorf("-o: %d %q", code, out)
	}
	if code, out, _ := w.run("", "scontrol", "show", "hostnames", "m-a,m-b"); code != 0 || out != "m-a\nm-b\n" {
		t.Errorf("hostnames: %d %q", code, out)
	}
	if code, _, errs := w.run("", "scontrol", "show", "job", "99"); code != 1 || !strings.Contains(errs, "Invalid job id") {
		t.Errorf("an unknown job: %d %q", code, errs)
	}
	for _, c := range []struct{ args, want string }{{"show partition gpu", "PartitionName=gpu\n"}, {"-o show partition", "MaxTime=01:00:00 MaxNodes=2"}, {"show node m-aaa", "State=IDLE"}} {
		if code, out, errs := w.run("", "scontrol", strings.Fields(c.args)...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %q %q, want %q", c.args, code, out, errs, c.want)
		}
	}
	if code, _, errs := w.run("", "scontrol", "show", "partition", "none"); code != 1 || !strings.Contains(errs, "not found") {
		t.Errorf("an unknown partition: %d %q", code, errs)
	}
	if code, _, errs := w.run("", "scontrol", "hold", "12"); code != 1 || !strings.Contains(errs, "cannot do `scontrol hold 12`") {
		t.Errorf("hold: %d %q", code, errs)
	}
}

func TestScancel(t *testing.T) {
	t.Parallel()
	w := populated(t)
	for _, args := range []string{"9 10_3", "--me -t PENDING", "-n sweep"} {
		if code, _, errs := w.run("", "scancel", strings.Fields(args)...); code != 0 {
			t.Errorf("scancel %s: %d %s", args, code, errs)
		}
	}
	if diff := cmp.Diff([]string{"9", "10/3", "9", "10/3-5", "10"}, w.cancelled); diff != "" {
		t.Error(diff)
	}
	for _, args := range []string{"", "-s USR1 9"} {
		if code, _, errs := w.run("", "scancel", strings.Fields(args)...); code != 1 {
			t.Errorf("scancel %s: %d %s", args, code, errs)
		}
	}
}

// TestSrunStep runs commands on the one node of a job.
func TestSrunStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["SLURM_JOB_ID"], w.env["SLURM_NTASKS"], w.env["SHOAL_NODES"], w.env["SLURMD_NODENAME"] = "7", "3", "m-aaa", "m-aaa"
	w.env["PATH"] = "/usr/bin:/bin"
	code, out, errs := w.run("", "srun", "-l", "sh", "-c", "echo $SLURM_PROCID of $SLURM_NTASKS on $SLURM_NODEID")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, want := range []string{"0: 0 of 3 on 0", "1: 1 of 3 on 0", "2: 2 of 3 on 0"} {
		if code != 0 || len(lines) != 3 || !strings.Contains(out, want) {
			t.Errorf("%d %q %q", code, out, errs)
		}
	}
	if code, out, _ := w.run("in\n", "srun", "-n1", "--cpu-bind=q", "cat"); code != 0 || out != "in\n" {
		t.Errorf("stdin: %d %q", code, out)
	}
	if code, _, _ := w.run("", "srun", "-n1", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exit code: %d", code)
	}
	if code, _, _ := w.run("", "srun", "-n", "2", "sh", "-c", "exit $SLURM_PROCID"); code != 1 {
		t.Errorf("the worst exit code: %d", code)
	}
	if code, _, errs := w.run("", "srun", "-n1", "/no/such"); code != 2 || !strings.Contains(errs, "No such file") {
		t.Errorf("no such command: %d %q", code, errs)
	}
	if code, _, errs := w.run("", "srun", "-N", "2", "true"); code != 1 || !strings.Contains(errs, "the job has 1 nodes") {
		t.Errorf("too many nodes: %d %q", code, errs)
	}
}

func TestSinfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ args, want string }{
		{"", "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\nlab*         up   infinite      4    mix m-aaa\ngpu          up    1:00:00      2  idle~\n"},
		{"-h -o %P", "lab*\ngpu\n"},
		{"-h -p gpu -o <%R|%G|%z>", "<gpu|gpu:2|n/a>\n"},
	} {
		code, out, errs := w.run("", "sinfo", strings.Fields(c.args)...)
		if diff := cmp.Diff(c.want, out); code != 0 || diff != "" {
			t.Errorf("sinfo %s: %d %s\n%s", c.args, code, errs, diff)
		}
	}
}
