package slurm

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoal-pool/shoal"
)

// options are what sbatch and srun take.
type options struct {
	name, partition, array, dependency, dir, export, wrap         string
	output, errors, input, openMode                               string
	time, mem, memPerCPU, memPerGPU, gres, signal, comment        string
	account, qos, nodes                                           string
	gpus, gpusPerNode, gpusPerTask                                string
	tasks, perNode, cpus, cpusPerGPU                              int
	parsable, wait, quiet, requeue, noRequeue, exclusive, testing bool
	label, killOnBadExit, help, ignorePBS                         bool
}

// flagSet defines the options. Those without a meaning here are gathered in ignored when they are used.
func (o *options) flagSet(name string, ignored *[]string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.StringVarP(&o.name, "job-name", "J", o.name, "")
	f.StringVarP(&o.partition, "partition", "p", o.partition, "")
	f.StringVarP(&o.array, "array", "a", o.array, "")
	f.StringVarP(&o.dependency, "dependency", "d", o.dependency, "")
	f.StringVarP(&o.dir, "chdir", "D", o.dir, "")
	f.StringVar(&o.export, "export", o.export, "")
	f.StringVar(&o.wrap, "wrap", o.wrap, "")
	f.StringVarP(&o.output, "output", "o", o.output, "")
	f.StringVarP(&o.errors, "error", "e", o.errors, "")
	f.StringVarP(&o.input, "input", "i", o.input, "")
	f.StringVar(&o.openMode, "open-mode", o.openMode, "")
	f.StringVarP(&o.time, "time", "t", o.time, "")
	f.StringVar(&o.mem, "mem", o.mem, "")
	f.StringVar(&o.memPerCPU, "mem-per-cpu", o.memPerCPU, "")
	f.StringVar(&o.memPerGPU, "mem-per-gpu", o.memPerGPU, "")
	f.StringVar(&o.gres, "gres", o.gres, "")
	f.StringVar(&o.signal, "signal", o.signal, "")
	f.StringVar(&o.comment, "comment", o.comment, "")
	f.StringVarP(&o.account, "account", "A", o.account, "")
	f.StringVarP(&o.qos, "qos", "q", o.qos, "")
	f.StringVarP(&o.nodes, "nodes", "N", o.nodes, "")
	f.StringVarP(&o.gpus, "gpus", "G", o.gpus, "")
	f.StringVar(&o.gpusPerNode, "gpus-per-node", o.gpusPerNode, "")
	f.StringVar(&o.gpusPerTask, "gpus-per-task", o.gpusPerTask, "")
	f.IntVarP(&o.tasks, "ntasks", "n", o.tasks, "")
	f.IntVar(&o.perNode, "ntasks-per-node", o.perNode, "")
	f.IntVarP(&o.cpus, "cpus-per-task", "c", o.cpus, "")
	f.IntVar(&o.cpusPerGPU, "cpus-per-gpu", o.cpusPerGPU, "")
	f.BoolVar(&o.parsable, "parsable", o.parsable, "")
	f.BoolVarP(&o.wait, "wait", "W", o.wait, "")
	f.BoolVar(&o.requeue, "requeue", o.requeue, "")
	f.BoolVar(&o.noRequeue, "no-requeue", o.noRequeue, "")
	f.BoolVar(&o.testing, "test-only", o.testing, "")
	f.BoolVarP(&o.help, "help", "h", false, "")
	exclusive := f.VarPF(&ignoredFlag{name: "exclusive", note: func(string) { o.exclusive = true }}, "exclusive", "", "")
	exclusive.NoOptDefVal = "node"
	if name == "srun" {
		f.BoolVarP(&o.label, "label", "l", false, "")
		f.BoolVarP(&o.killOnBadExit, "kill-on-bad-exit", "K", false, "")
		ignore(f, ignored, false, "unbuffered/u", "overlap", "pty", "no-kill/k", "propagate", "oversubscribe/s")
		ignore(f, ignored, true, "mpi", "jobid", "cpu-bind", "mem-bind", "distribution/m", "relative/r", "nodelist/w", "resv-ports", "wait-time")
		f.BoolVarP(&o.quiet, "quiet", "Q", o.quiet, "")
	} else {
		f.BoolVarP(&o.quiet, "quiet", "Q", o.quiet, "")
		ignore(f, ignored, true, "mem-bind", "distribution/m", "nodelist/w", "cpu-bind")
		ignore(f, ignored, false, "oversubscribe/s", "overcommit/O", "no-kill/k", "spread-job", "use-min-nodes", "verbose/v")
		f.BoolVar(&o.ignorePBS, "ignore-pbs", o.ignorePBS, "")
	}
	ignore(f, ignored, false, "contiguous", "reboot", "wait-all-nodes", "no-bell")
	ignore(f, ignored, true, "cpu-freq", "delay-boot", "extra", "gpus-per-socket", "mcs-label", "network", "ntasks-per-gpu", "power", "prefer", "container-id")
	ignore(f, ignored, true, "mail-type", "mail-user", "constraint/C", "licenses/L", "exclude/x", "nice", "priority", "clusters/M", "cluster-constraint",
		"profile", "acctg-freq", "core-spec/S", "hint", "tmp", "reservation", "switches", "wckey", "get-user-env", "threads-per-core", "sockets-per-node", "cores-per-socket",
		"time-min", "mincpus", "gres-flags", "gpu-bind", "gpu-freq", "ntasks-per-core", "ntasks-per-socket", "extra-node-info/B", "propagate", "kill-on-invalid-dep", "deadline", "batch", "thread-spec", "container")
	refuse(f, "hold/H", "begin/b", "burst-buffer", "bbf", "gid", "uid", "export-file", "nodefile/F", "tres-per-task")
	return f
}

// ignore takes options that change nothing here, once each; their short names follow a slash.
func ignore(f *pflag.FlagSet, used *[]string, value bool, names ...string) {
	for _, n := range names {
		long, short, _ := strings.Cut(n, "/")
		if f.Lookup(long) != nil {
			continue
		}
		flag := f.VarPF(&ignoredFlag{name: long, note: func(name string) { *used = append(*used, "--"+name) }}, long, short, "")
		if !value || long == "nice" || long == "get-user-env" || long == "propagate" {
			flag.NoOptDefVal = "true"
		}
	}
}

// refuse defines options whose meaning cannot be kept.
func refuse(f *pflag.FlagSet, names ...string) {
	for _, n := range names {
		long, short, _ := strings.Cut(n, "/")
		flag := f.VarPF(&refusedFlag{long}, long, short, "")
		if long == "hold" {
			flag.NoOptDefVal = "true"
		}
	}
}

type ignoredFlag struct {
	name string
	note func(name string)
}

func (*ignoredFlag) String() string       { return "" }
func (*ignoredFlag) Type() string         { return "string" }
func (f *ignoredFlag) Set(s string) error { f.note(f.name); return nil }

type refusedFlag struct{ name string }

func (*refusedFlag) String() string { return "" }
func (*refusedFlag) Type() string   { return "string" }
func (f *refusedFlag) Set(string) error {
	return fmt.Errorf("--%s has no counterpart in Shoal, and leaving it out would change what the job does", f.name)
}

// parse reads a command line. It returns what follows the options, and those that have no meaning here.
func (c *command) parse(o *options, args []string) (rest, ignored []string, err error) {
	f := o.flagSet(c.name, &ignored)
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return nil, nil, shoal.Errorf(shoal.KindInvalid, "%w", err).WithHint("options are those of Slurm's %s; `shoal run --help` shows Shoal's own", c.name)
	}
	if f.Changed("array") && o.array == "" {
		return nil, nil, shoal.Errorf(shoal.KindInvalid, `Invalid job array specification ""`)
	}
	return f.Args(), ignored, nil
}

// leaveOut says which options are ignored.
func (c *command) leaveOut(o options, ignored []string) {
	if len(ignored) > 0 && !o.quiet {
		c.note("without a meaning here, and left out: %s", strings.Join(ignored, ", "))
	}
}

// timeLimit reads minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
// days-hours:minutes:seconds; zero and UNLIMITED mean none.
func timeLimit(s string) (time.Duration, error) {
	if strings.EqualFold(s, "unlimited") || strings.EqualFold(s, "infinite") {
		return 0, nil
	}
	bad := shoal.Errorf(shoal.KindInvalid, "Invalid --time specification %q", s).WithHint("write MINUTES, MM:SS, HH:MM:SS, D-HH or D-HH:MM:SS")
	days, rest, dashed := strings.Cut(s, "-")
	if !dashed {
		days, rest = "0", s
	}
	numbers := []string{days}
	parts := strings.Split(rest, ":")
	switch {
	case len(parts) > 3:
		return 0, bad
	case dashed: // hours come first
		numbers = append(numbers, append(parts, "0", "0")[:3]...)
	case len(parts) == 1:
		numbers = append(numbers, "0", parts[0], "0")
	case len(parts) == 2:
		numbers = append(numbers, "0", parts[0], parts[1])
	default:
		numbers = append(numbers, parts...)
	}
	var d time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, err := strconv.ParseUint(numbers[i], 10, 31)
		if err != nil || time.Duration(n) > (1<<62)/unit {
			return 0, bad
		}
		d += time.Duration(n) * unit
	}
	return d, nil
}

// memory reads an amount in MiB unless it has a unit K, M, G or T.
func memory(s string) (shoal.Bytes, error) {
	unit := shoal.Bytes(1 << 20)
	digits := strings.TrimRight(strings.ToUpper(s), "BI")
	if i := strings.IndexAny(digits, "KMGT"); i >= 0 && i == len(digits)-1 {
		unit = map[byte]shoal.Bytes{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}[digits[i]]
		digits = digits[:i]
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || shoal.Bytes(n) > 1<<60/unit {
		return 0, shoal.Errorf(shoal.KindInvalid, "Invalid memory specification %q", s).WithHint("write a number of megabytes, or one with K, M, G or T")
	}
	return shoal.Bytes(n) * unit, nil
}

// gpuCount reads "2", "a100:2" or, of --gres, "gpu:2" and "gpu:a100:2".
func gpuCount(s string) (int, error) {
	total := 0
	for _, word := range words(s) {
		parts := strings.Split(word, ":")
		n, err := strconv.ParseUint(parts[len(parts)-1], 10, 16)
		if err != nil {
			if len(parts) > 2 || len(parts) == 0 {
				return 0, shoal.Errorf(shoal.KindInvalid, "Invalid number of GPUs %q", s)
			}
			n = 1 // a kind alone
		}
		total += int(n)
	}
	return total, nil
}
