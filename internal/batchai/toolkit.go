package batchai

import (
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// The toolkits are frameworks that the service knew how to start. Which launcher stands for each, and
// what the nodes run, is here.

// launch is how a toolkit is started.
type launch struct {
	command   string
	launcher  string // each, head or mpi
	processes int    // of mpi, or of each with more than one on a node
	output    string // what the names of its output files had behind stdout
	env       map[string]string
}

// toolkit finds the job's one toolkit.
func (r *reading) toolkit(p jobProperties, nodes int) launch {
	const at = "properties."
	type block struct {
		key  string
		used bool
		make func(path string) launch
	}
	blocks := []block{
		{"cntkSettings", p.CNTK != nil, func(path string) launch { return r.cntk(*p.CNTK, path, nodes) }},
		{"pyTorchSettings", p.PyTorch != nil, func(path string) launch { return r.pyTorch(*p.PyTorch, path, nodes) }},
		{"tensorFlowSettings", p.TensorFlow != nil, func(path string) launch { return r.tensorFlow(*p.TensorFlow, path, nodes) }},
		{"caffeSettings", p.Caffe != nil, func(path string) launch { return r.caffe(*p.Caffe, path, nodes) }},
		{"caffe2Settings", p.Caffe2 != nil, func(path string) launch {
			c := p.Caffe2
			return launch{command: r.python(path, c.At, c.Interpreter, c.Script, c.Args), launcher: "each", output: several(nodes, "-%n")}
		}},
		{"chainerSettings", p.Chainer != nil, func(path string) launch { return r.mpi(*p.Chainer, path, nodes) }},
		{"horovodSettings", p.Horovod != nil, func(path string) launch { return r.mpi(*p.Horovod, path, nodes) }},
		{"customToolkitSettings", p.CustomToolkit != nil, func(path string) launch {
			c := p.CustomToolkit
			if c.Line.s == "" {
				r.wrong(c.At, path+".commandLine", "", "the toolkit has no command line")
			}
			return launch{command: c.Line.s, launcher: several(nodes, "head")}
		}},
		{"customMpiSettings", p.CustomMPI != nil, func(path string) launch {
			c := p.CustomMPI
			if c.Line.s == "" {
				r.wrong(c.At, path+".commandLine", "", "the toolkit has no command line")
			}
			return launch{command: c.Line.s, launcher: "mpi", processes: r.count(c.Count, path, nodes)}
		}},
	}
	var found *block
	var names []string
	for i, b := range blocks {
		names = append(names, b.key)
		if b.used && found != nil {
			r.wrong(place{}, at+b.key, "leave one of them out", "a job has one toolkit, and %s is there too", found.key)
		}
		if b.used {
			found = &blocks[i]
		}
	}
	if found == nil {
		r.wrong(place{}, "properties", "add one of "+strings.Join(names, ", "), "the job says nothing about what to run")
		return launch{}
	}
	return found.make(at + found.key)
}

// several is the text where there is more than one node.
func several(nodes int, s string) string {
	if nodes > 1 {
		return s
	}
	return ""
}

// count is a number of processes; by default there is one for each node.
func (r *reading) count(n number, path string, nodes int) int {
	if !n.set {
		return nodes
	}
	if n.n < 1 || n.n > 100_000 {
		r.wrong(n.at, path+".processCount", "", "%d is no number of processes", n.n)
	}
	return n.n
}

// python runs a script. Machines have python3, and the old images had python.
func (r *reading) python(path string, at place, interpreter, script, args text) string {
	if script.s == "" {
		r.wrong(at, path+".pythonScriptFilePath", "", "the toolkit has no script")
	}
	program := "python3"
	if r.contained {
		program = "python"
	}
	if interpreter.s != "" {
		program = shellWord(interpreter.s)
	}
	return strings.TrimSpace(program + " " + shellWord(script.s) + " " + args.s)
}

// shellWord is one word of a shell in which variables, and nothing else, have a meaning.
func shellWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\`$&|;<>()*?[]#~=%!{}") {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i, c := range s {
		switch {
		case c == '"' || c == '\\' || c == '`', c == '$' && !variableFollows(s[i+1:]):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	b.WriteByte('"')
	return b.String()
}

func variableFollows(s string) bool {
	s = strings.TrimPrefix(s, "{")
	return s != "" && (s[0] == '_' || s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z')
}

// mpi is a toolkit whose processes mpirun starts.
func (r *reading) mpi(p processes, path string, nodes int) launch {
	return started(r.python(path, p.At, p.Interpreter, p.Script, p.Args), r.count(p.Count, path, nodes), nodes)
}

// started runs one process by itself, and several by mpirun.
func started(command string, count, nodes int) launch {
	if count == 1 && nodes == 1 {
		return launch{command: command}
	}
	return launch{command: command, launcher: "mpi", processes: count}
}

func (r *reading) pyTorch(p pyTorch, path string, nodes int) launch {
	command := r.python(path, p.At, p.Interpreter, p.Script, p.Args)
	count := r.count(p.Count, path, nodes)
	backends := []string{"TCP", "Gloo", "MPI"}
	switch strings.ToLower(p.Backend.s) {
	case "mpi":
		return started(command, count, nodes)
	case "", "tcp", "gloo", "nccl":
	default:
		r.wrong(p.Backend.at, path+".communicationBackend", spec.Suggest(p.Backend.s, backends), "%q is no backend", clip(p.Backend.s))
	}
	l := launch{command: command, launcher: "each", output: several(nodes, "-%n")}
	if p.Backend.s != "" {
		l.env = map[string]string{"AZ_BATCHAI_PYTORCH_BACKEND": strings.ToLower(p.Backend.s)}
	}
	if count > nodes {
		l.processes = count
	} else if count < nodes {
		r.wrong(p.Count.at, path+".processCount", "", "there are %d processes for %d nodes", count, nodes)
	}
	return l
}

func (r *reading) cntk(c cntk, path string, nodes int) launch {
	var command string
	switch strings.ToLower(c.Language.s) {
	case "python":
		command = r.python(path, c.At, c.Interpreter, c.Script, c.Args)
	case "", "brainscript":
		if c.Language.s == "" && c.Script.s != "" {
			command = r.python(path, c.At, c.Interpreter, c.Script, c.Args)
			break
		}
		if c.Config.s == "" {
			r.wrong(c.At, path+".configFilePath", "", "the toolkit has no configuration file")
		}
		command = strings.TrimSpace("cntk " + shellWord("configFile="+c.Config.s) + " " + c.Args.s)
	default:
		r.wrong(c.Language.at, path+".languageType", spec.Suggest(c.Language.s, []string{"BrainScript", "Python"}), "%q is no language of CNTK's", clip(c.Language.s))
	}
	return started(command, r.count(c.Count, path, nodes), nodes)
}

func (r *reading) caffe(c caffe, path string, nodes int) launch {
	var command string
	switch {
	case (c.Config.s == "") == (c.Script.s == ""):
		r.wrong(c.At, path, "give one of configFilePath and pythonScriptFilePath", "Caffe runs either a solver or a script")
	case c.Script.s != "":
		command = r.python(path, c.At, c.Interpreter, c.Script, c.Args)
	default:
		command = strings.TrimSpace("caffe train -solver " + shellWord(c.Config.s) + " " + c.Args.s)
	}
	return started(command, r.count(c.Count, path, nodes), nodes)
}

func (r *reading) tensorFlow(t tensorFlow, path string, nodes int) launch {
	workers, servers := nodes, 1
	if t.Workers.set {
		workers = t.Workers.n
	}
	if t.Servers.set {
		servers = t.Servers.n
	}
	master := r.python(path, t.At, t.Interpreter, t.Script, t.Master)
	if nodes == 1 && !t.Workers.set && !t.Servers.set || workers == 1 && servers == 0 {
		return launch{command: master, output: "-wk-0"}
	}
	const most = 256
	if workers < 1 || workers > most || workers < nodes {
		r.wrong(t.Workers.at, path+".workerCount", "", "%d is no number of workers for %d nodes", workers, nodes)
	}
	if servers < 0 || servers > most {
		r.wrong(t.Servers.at, path+".parameterServerCount", "", "%d is no number of parameter servers", servers)
	}
	return launch{
		command:  tensorFlowScript(master, r.python(path, t.At, t.Interpreter, t.Script, t.Worker), r.python(path, t.At, t.Interpreter, t.Script, t.Server)),
		launcher: "each", output: "-wk-%n",
		env: map[string]string{"AZ_BATCHAI_WORKER_COUNT": strconv.Itoa(workers), "AZ_BATCHAI_PS_COUNT": strconv.Itoa(servers)},
	}
}

// tensorFlowScript starts a node's part of the workers and parameter servers: number i is on node i modulo the
// number of nodes. Servers never end by themselves, so a node that has some waits until all nodes' workers
// are done. A worker that fails ends its node, and with it the task.
func tensorFlowScript(master, worker, server string) string {
	return `names() { printf '"%s"' "$1" | sed 's/,/","/g; s/^""$//'; }
process() {
    export AZ_BATCHAI_TASK_INDEX=$2
    export TF_CONFIG="{\"cluster\":{\"ps\":[$(names "$AZ_BATCHAI_PS_HOSTS")],\"worker\":[$(names "$AZ_BATCHAI_WORKER_HOSTS")]},\"task\":{\"type\":\"$1\",\"index\":$2}}"
    case $1$2 in
    ps*) exec ` + server + ` ;;
    worker0) exec ` + master + ` ;;
    *) exec ` + worker + ` ;;
    esac
}
servers= workers= status=0
i=$SHOAL_NODE_RANK
while [ "$i" -lt "$AZ_BATCHAI_PS_COUNT" ]; do (process ps "$i") & servers="$servers $!"; i=$((i + SHOAL_NODE_COUNT)); done
i=$SHOAL_NODE_RANK
while [ "$i" -lt "$AZ_BATCHAI_WORKER_COUNT" ]; do (process worker "$i") & workers="$workers $!"; i=$((i + SHOAL_NODE_COUNT)); done
for p in $workers; do wait "$p" || status=$?; done
[ $status = 0 ] || exit $status
over=$AZ_BATCHAI_SHARED_JOB_TEMP/over.$SHOAL_TASK_INDEX.$SHOAL_ATTEMPT
mkdir -p "$over" && : >"$over/$SHOAL_NODE_RANK"
if [ -n "$servers" ]; then
    until [ "$(ls "$over" | wc -l)" -ge "$SHOAL_NODE_COUNT" ]; do sleep 1; done
    kill $servers 2>/dev/null
    wait
fi
exit 0`
}

// fit puts a toolkit's start into a job.
func (l launch) fit(j *shoal.JobSpec) {
	j.Command = l.command
	if l.launcher != "" {
		j.Launcher = l.launcher
	}
	j.Processes = l.processes
	for name, value := range l.env {
		j.Env[name] = value
	}
}
