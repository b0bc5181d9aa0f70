package launch

import (
	"fmt"
	"hash/fnv"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// environment is what the processes of a node see beside their user's login environment.
func (v *view) environment() map[string]string {
	env := v.frameworks()
	switch v.spec.Dialect {
	case batchAI:
		v.batchAI(env)
	case slurm:
		v.slurm(env)
	}
	own := v.spec.Env
	if len(v.task.Env) > 0 {
		own = map[string]string{}
		maps.Copy(own, v.spec.Env)
		maps.Copy(own, v.task.Env)
	}
	for name, value := range own {
		env[name] = v.fields.fill(value)
	}
	if v.spec.Dialect == batchAI {
		known := maps.Clone(env)
		for name := range own {
			env[name] = expand(env[name], v.spec.Dialect, without(known, name))
		}
	}
	if v.fields.given {
		env["SHOAL_ITEM"] = v.fields.whole
		for name, value := range v.fields.named {
			env["PARAM_"+word(name)] = value
		}
	}
	v.promised(env)
	return env
}

// without leaves a variable out of those that its own value may name.
func without(vars map[string]string, name string) map[string]string {
	vars = maps.Clone(vars)
	delete(vars, name)
	return vars
}

// promised adds what every task can rely on.
func (v *view) promised(env map[string]string) {
	ref := v.Attempt.AttemptRef
	env["SHOAL_JOB_ID"] = string(v.Job.ID)
	env["SHOAL_JOB_NAME"] = v.spec.Name
	env["SHOAL_TASK_INDEX"] = strconv.Itoa(v.Position)
	env["SHOAL_ARRAY_INDEX"] = strconv.Itoa(ref.Index)
	env["SHOAL_ATTEMPT"] = strconv.Itoa(ref.Attempt)
	env["SHOAL_RESTART_COUNT"] = strconv.Itoa(max(ref.Attempt-1, 0))
	env["SHOAL_NODE_RANK"] = strconv.Itoa(v.rank)
	env["SHOAL_NODE_COUNT"] = strconv.Itoa(len(v.Nodes))
	env["SHOAL_NODES"] = v.names(" ")
	env["SHOAL_GPUS"] = numbers(v.node.GPUs)
	env["SHOAL_POOL"] = string(v.spec.Pool)
	env["SHOAL_SCRATCH"] = api.ScratchDir(ref)
	env["SHOAL_JOB_TEMP"] = api.JobScratchDir(v.Job.ID)
	env["SHOAL_JOB_SCRATCH"] = v.shared()
	if v.hosted() {
		env["SHOAL_HOSTFILE"] = v.at("hostfile")
	}
	if v.task.Name != "" {
		env["SHOAL_TASK_NAME"] = v.task.Name
	}
	for _, m := range slices.Backward(v.Pool.Mounts) { // of several, the first counts
		env["SHOAL_SHARE_"+word(string(m.Share))] = m.Path
	}
	for name, dir := range v.spec.Inputs {
		env["SHOAL_INPUT_"+word(name)] = v.text(dir)
	}
	for name := range v.spec.Outputs {
		env["SHOAL_OUTPUT_"+word(name)] = OutputDir(v.Job, name)
	}
}

// at is the path of one of the attempt's files.
func (v *view) at(name string) string { return path.Join(api.TaskDir(v.Attempt.AttemptRef), name) }

// usualVars is how many variables a plain task has.
const usualVars = 24

// frameworks are the variables by which training programs find each other. Those of one process
// are those of a node's first; the scripts rank and ranks give others to the others.
func (v *view) frameworks() map[string]string {
	all, first := v.processes()
	if v.launcher() == head {
		all = len(v.Nodes)
	}
	addr, port := v.host(0), strconv.Itoa(v.port(portMaster))
	local := max(len(v.node.GPUs), 1)
	env := make(map[string]string, usualVars+len(v.spec.Env))
	env["MASTER_ADDR"] = addr
	env["MASTER_PORT"] = port
	env["RANK"] = strconv.Itoa(first)
	env["LOCAL_RANK"] = "0"
	env["WORLD_SIZE"] = strconv.Itoa(all)
	env["TF_CONFIG"] = v.tfConfig()
	if len(v.Nodes) > 1 {
		// Defaults of torchrun's options, which has a prefix of its own for them.
		maps.Copy(env, map[string]string{"PET_NNODES": strconv.Itoa(len(v.Nodes)), "PET_NODE_RANK": strconv.Itoa(v.rank),
			"PET_NPROC_PER_NODE": strconv.Itoa(local), "PET_MASTER_ADDR": addr, "PET_MASTER_PORT": port})
	}
	if v.node.Has.GPUs > 0 {
		env["CUDA_VISIBLE_DEVICES"] = numbers(v.node.GPUs) // empty: a task that asked for none sees none
	}
	if v.gang() {
		env["LOCAL_WORLD_SIZE"] = strconv.Itoa(v.slots[v.rank])
		env["NODE_RANK"] = strconv.Itoa(v.rank)
		maps.Copy(env, v.launcherSettings())
	}
	return env
}

// launcherSettings make an mpirun that is called by hand, or by a program, start its processes on the attempt's nodes.
func (v *view) launcherSettings() map[string]string {
	return map[string]string{
		"OMPI_MCA_orte_default_hostfile": v.at("hostfile"),
		"OMPI_MCA_plm_rsh_agent":         "ssh -F " + v.at("ssh_config"),
		// A task has a part of the processors, whichever they are.
		"OMPI_MCA_hwloc_base_binding_policy": "none",
		// It would copy from another process's memory, which machines do not allow.
		"OMPI_MCA_btl_vader_single_copy_mechanism": "none",
		// Processes that are to end have the grace of tasks, less what it takes to tell them. Open MPI leaves them a second.
		"OMPI_MCA_odls_base_sigkill_timeout": "8",
		"HYDRA_HOST_FILE":                    v.at("machinefile"),
		"HYDRA_LAUNCHER":                     "ssh",
		"HYDRA_LAUNCHER_EXEC":                v.at("ssh"),
	}
}

// Ports of an attempt. Each has a block of them; more servers or workers than that on one node have to find their own.
const (
	portMaster   = 0
	portServer   = 1
	portWorker   = 2 // and up to the end of the block
	portBlock    = 16
	firstPort    = 10000
	portBlocks   = 1400 // they end below the range from which Linux gives out ports by itself
	attemptShift = 397  // a new attempt must not meet what an older one has left
)

// port is one of the attempt's. Tasks of an array that run side by side have different ones.
func (v *view) port(which int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(v.Job.ID)) // a hash takes all
	block := (uint64(h.Sum32()) + uint64(max(v.Position, 0)) + attemptShift*uint64(max(v.Attempt.Attempt, 0))) % portBlocks
	return firstPort + portBlock*int(block) + min(which, portBlock-1)
}

// host is where the others reach a node; one that is alone needs no network.
func (v *view) host(node int) string {
	if len(v.Nodes) == 1 {
		return "127.0.0.1"
	}
	return v.Nodes[node].host()
}

// servers and workers are the places of TensorFlow's processes: worker i is on node i modulo their number, and so is
// server i.
func (v *view) servers() []string {
	if v.spec.Dialect != batchAI {
		return nil
	}
	return v.places(v.count("AZ_BATCHAI_PS_COUNT", 0), portServer, 0)
}

func (v *view) workers() []string {
	n := len(v.Nodes)
	if v.spec.Dialect == batchAI {
		n = v.count("AZ_BATCHAI_WORKER_COUNT", n)
	}
	return v.places(n, portWorker, 1)
}

func (v *view) places(n, first, step int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = v.host(i%len(v.Nodes)) + ":" + strconv.Itoa(v.port(first+step*(i/len(v.Nodes))))
	}
	return out
}

// maxCount bounds what a job says of itself.
const maxCount = 1024

// count is what the job says in one of its variables.
func (v *view) count(name string, otherwise int) int {
	if n, err := strconv.Atoi(v.spec.Env[name]); err == nil && n >= 0 && n <= maxCount {
		return n
	}
	return otherwise
}

// tfConfig describes the group to TensorFlow: every node has a worker. Addresses need no escapes.
func (v *view) tfConfig() string {
	var b strings.Builder
	list := func(name string, places []string) {
		fmt.Fprintf(&b, `"%s":["%s"]`, name, strings.Join(places, `","`))
	}
	b.WriteString(`{"cluster":{`)
	if servers := v.servers(); len(servers) > 0 {
		list("ps", servers)
		b.WriteByte(',')
	}
	list("worker", v.workers())
	fmt.Fprintf(&b, `},"task":{"type":"worker","index":%d}}`, v.rank)
	return b.String()
}

// stdOutErr is the name under which Batch AI knew the directory of a job's output.
const stdOutErr = "stdouterr"

// batchAI adds what Batch AI gave its jobs. The roots of mounts are the job's own to say.
func (v *view) batchAI(env map[string]string) {
	_, first := v.processes()
	gpus := strconv.Itoa(len(v.node.GPUs))
	logs := v.shared()
	if _, ok := v.spec.Outputs[stdOutErr]; ok {
		logs = OutputDir(v.Job, stdOutErr)
	}
	if v.spec.Stdout != "" {
		logs = path.Dir(v.file(v.spec.Stdout))
	}
	maps.Copy(env, map[string]string{
		"AZ_BATCHAI_STDOUTERR_DIR":       logs,
		"AZ_BATCHAI_JOB_TEMP":            api.JobScratchDir(v.Job.ID),
		"AZ_BATCHAI_JOB_TEMP_DIR":        api.JobScratchDir(v.Job.ID),
		"AZ_BATCHAI_SHARED_JOB_TEMP":     v.shared(),
		"AZ_BATCHAI_NUM_GPUS":            gpus,
		"AZ_BATCHAI_NUM_GPUS_PER_NODE":   gpus,
		"AZ_BATCHAI_TASK_INDEX":          strconv.Itoa(first),
		"AZ_BATCHAI_WORKER_HOSTS":        strings.Join(v.workers(), ","),
		"AZ_BATCHAI_PS_HOSTS":            strings.Join(v.servers(), ","),
		"AZ_BATCHAI_PYTORCH_INIT_METHOD": fmt.Sprintf("tcp://%s:%d", v.host(0), v.port(portMaster)),
		"AZ_BATCHAI_PYTORCH_BACKEND":     "gloo",
	})
	hosts := make([]string, len(v.Nodes))
	for i := range hosts {
		hosts[i] = v.host(i)
	}
	// What its machines had from Azure Batch, on which it ran, and files name as well.
	maps.Copy(env, map[string]string{
		"AZ_BATCH_HOST_LIST":              strings.Join(hosts, ","),
		"AZ_BATCH_NODE_LIST":              strings.Join(hosts, ";"),
		"AZ_BATCH_MASTER_NODE":            fmt.Sprintf("%s:%d", hosts[0], v.port(portMaster)),
		"AZ_BATCH_IS_CURRENT_NODE_MASTER": strconv.FormatBool(v.rank == 0),
		"AZ_BATCHAI_MPI_MASTER_NODE":      hosts[0],
	})
	if v.hosted() {
		env["AZ_BATCHAI_MPI_HOST_FILE"] = v.at("hostfile")
	}
	for name, dir := range v.spec.Inputs {
		env["AZ_BATCHAI_INPUT_"+name] = v.text(dir)
	}
	for name := range v.spec.Outputs {
		env["AZ_BATCHAI_OUTPUT_"+name] = OutputDir(v.Job, name)
	}
}

// slurm adds what a script that was written for Slurm looks for. What its sbatch line said is in the job's own variables.
func (v *view) slurm(env map[string]string) {
	id, n := string(v.Job.ID), len(v.Nodes)
	cpus := strconv.Itoa(v.processors(v.node))
	perNode := func(s string) string {
		if n > 1 {
			return fmt.Sprintf("%s(x%d)", s, n)
		}
		return s
	}
	memory := v.resources.Memory
	if memory == 0 {
		memory = v.node.Has.Memory
	}
	maps.Copy(env, map[string]string{
		"SLURM_JOB_ID":            id,
		"SLURM_JOBID":             id,
		"SLURM_JOB_NAME":          v.spec.Name,
		"SLURM_JOB_PARTITION":     string(v.spec.Pool),
		"SLURM_JOB_USER":          string(v.Job.User),
		"SLURM_CLUSTER_NAME":      "shoal",
		"SLURM_NNODES":            strconv.Itoa(n),
		"SLURM_JOB_NUM_NODES":     strconv.Itoa(n),
		"SLURM_NODELIST":          v.names(","),
		"SLURM_JOB_NODELIST":      v.names(","),
		"SLURM_NODEID":            strconv.Itoa(v.rank),
		"SLURM_PROCID":            strconv.Itoa(v.rank),
		"SLURM_LOCALID":           "0",
		"SLURMD_NODENAME":         string(v.node.Machine),
		"SLURM_SUBMIT_HOST":       string(v.node.Machine),
		"SLURM_CPUS_ON_NODE":      cpus,
		"SLURM_JOB_CPUS_PER_NODE": perNode(cpus),
		"SLURM_TASKS_PER_NODE":    perNode(strconv.Itoa(v.room(v.rank))),
		"SLURM_MEM_PER_NODE":      strconv.FormatInt(int64(memory>>20), 10),
		"SLURM_RESTART_COUNT":     strconv.Itoa(max(v.Attempt.Attempt-1, 0)),
		"SLURM_JOB_GPUS":          numbers(v.node.GPUs),
		"SLURM_GPUS_ON_NODE":      strconv.Itoa(len(v.node.GPUs)),
		// Open MPI would take this for a real Slurm, and its srun for one that starts its daemons.
		"OMPI_MCA_plm": "^slurm",
		"OMPI_MCA_ras": "^slurm",
	})
	if len(v.node.GPUs) == 0 {
		delete(env, "SLURM_JOB_GPUS")
		delete(env, "SLURM_GPUS_ON_NODE")
	}
	if v.spec.Array != "" {
		maps.Copy(env, v.slurmArray())
	}
}

func (v *view) slurmArray() map[string]string {
	env := map[string]string{"SLURM_ARRAY_JOB_ID": string(v.Job.ID), "SLURM_ARRAY_TASK_ID": strconv.Itoa(v.Attempt.Index)}
	a, err := shoal.ParseArray(v.spec.Array)
	if err != nil || a.Len() == 0 {
		return env // it was checked when it was submitted
	}
	step := 1
	if a.Len() > 1 {
		step = a.Index(1) - a.Index(0)
	}
	maps.Copy(env, map[string]string{"SLURM_ARRAY_TASK_COUNT": strconv.Itoa(a.Len()), "SLURM_ARRAY_TASK_MIN": strconv.Itoa(a.Index(0)),
		"SLURM_ARRAY_TASK_MAX": strconv.Itoa(a.Index(a.Len() - 1)), "SLURM_ARRAY_TASK_STEP": strconv.Itoa(step)})
	return env
}
