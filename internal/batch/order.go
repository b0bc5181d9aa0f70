package batch

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Orders are the attempts that should be running on a machine.
func (b *Batch) Orders(ctx context.Context, machine shoal.MachineID) ([]api.TaskOrder, error) {
	var orders []api.TaskOrder
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		orders = nil
		attempts, err := tx.LiveAttemptsOn(machine)
		if err != nil || len(attempts) == 0 {
			return err
		}
		m, err := tx.Machines().Get(machine)
		if err != nil {
			return err
		}
		jobs := map[shoal.JobID]shoal.Job{}
		for _, a := range attempts {
			j, ok := jobs[a.Job]
			if !ok {
				if j, err = tx.Jobs().Get(a.Job); err != nil {
					return err
				}
				jobs[a.Job] = j
			}
			if j.Cancel || a.Epoch != m.Epoch {
				continue // the agent ends what is not listed
			}
			array, err := shoal.ParseArray(j.Spec.Array)
			if err != nil {
				return err
			}
			p, _ := array.Position(a.Index)
			orders = append(orders, order(j, a, p, m))
		}
		return nil
	})
	return orders, err
}

// order is what an agent needs to run an attempt.
func order(j shoal.Job, a shoal.Attempt, position int, m shoal.Machine) api.TaskOrder {
	s := j.Spec
	o := api.TaskOrder{Ref: a.AttemptRef, User: j.User, Command: s.Command, Workdir: s.Workdir, Prepare: s.Prepare,
		Resources: s.Resources, TimeLimit: s.TimeLimit, Env: environment(j, a, position, m)}
	for _, name := range slices.Sorted(maps.Keys(s.Outputs)) {
		o.Outputs = append(o.Outputs, outputDir(j, name))
	}
	return o
}

// outputDir is the directory of one of a job's outputs: below the one that was named, so that no
// two jobs share it. All tasks of an array do.
func outputDir(j shoal.Job, name string) string {
	return path.Join(j.Spec.Outputs[name].Path, string(j.ID))
}

// environment is what a task sees beside its user's login environment. The variables of the
// frameworks describe a group of one, as long as a task has one node; the user's own win over them.
func environment(j shoal.Job, a shoal.Attempt, position int, m shoal.Machine) map[string]string {
	gpus := make([]string, len(a.GPUs))
	for i, n := range a.GPUs {
		gpus[i] = strconv.Itoa(n)
	}
	port := strconv.Itoa(masterPort(a.AttemptRef))
	env := map[string]string{
		"MASTER_ADDR": "127.0.0.1",
		"MASTER_PORT": port,
		"RANK":        "0",
		"LOCAL_RANK":  "0",
		"WORLD_SIZE":  "1",
		"TF_CONFIG":   fmt.Sprintf(`{"cluster":{"worker":["127.0.0.1:%s"]},"task":{"type":"worker","index":0}}`, port),
	}
	if m.Resources.GPUs > 0 {
		env["CUDA_VISIBLE_DEVICES"] = strings.Join(gpus, ",") // empty: a task that asked for none sees none
	}
	maps.Copy(env, j.Spec.Env)
	maps.Copy(env, map[string]string{
		"SHOAL_JOB_ID":      string(j.ID),
		"SHOAL_JOB_NAME":    j.Spec.Name,
		"SHOAL_TASK_INDEX":  strconv.Itoa(position),
		"SHOAL_ARRAY_INDEX": strconv.Itoa(a.Index),
		"SHOAL_ATTEMPT":     strconv.Itoa(a.Attempt),
		"SHOAL_NODE_RANK":   "0",
		"SHOAL_NODE_COUNT":  "1",
		"SHOAL_NODES":       string(m.ID),
		"SHOAL_GPUS":        strings.Join(gpus, ","),
		"SHOAL_POOL":        string(j.Spec.Pool),
	})
	for name, dir := range j.Spec.Inputs {
		env["SHOAL_INPUT_"+strings.ToUpper(name)] = dir
	}
	for name := range j.Spec.Outputs {
		env["SHOAL_OUTPUT_"+strings.ToUpper(name)] = outputDir(j, name)
	}
	return env
}

// masterPort is a port that differs between tasks that may share a machine: below the range from
// which Linux gives out ports by itself.
func masterPort(ref shoal.AttemptRef) int {
	h := fnv.New32a()
	fmt.Fprint(h, ref)
	return 20000 + int(h.Sum32()%12000)
}
