package launch_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/launch"
)

var update = flag.Bool("update", false, "write the golden files")

func node(i int, gpus ...int) launch.Node {
	return launch.Node{Machine: shoal.MachineID(fmt.Sprintf("m-00000%d", i)), Address: fmt.Sprintf("100.64.0.%d:22", i+1),
		HostKey: fmt.Sprintf("ssh-ed25519 HOST%d", i), Has: shoal.Resources{CPUs: 2000, Memory: 4 << 30, GPUs: 2}, GPUs: gpus}
}

func task(spec shoal.JobSpec, nodes int) launch.Task {
	spec.Pool = "lab"
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17"}, Attempt: 1}
	t := launch.Task{Job: shoal.Job{ID: "17", User: "alice", Spec: spec}, Attempt: shoal.Attempt{AttemptRef: ref},
		Pool: shoal.Pool{Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}, {Share: "big-data", Path: "/data"}, {Share: "team", Path: "/again"}},
			Home: shoal.Home{Share: "team", Path: "home/{user}"}}}
	for i := range nodes {
		t.Nodes = append(t.Nodes, node(i+1, 1))
	}
	if nodes > 1 {
		t.SSH = &api.TaskSSH{Key: "PRIVATE\n", Authorized: "ssh-ed25519 PUBLIC"}
	}
	return t
}

// cases are the orders that golden files hold.
func cases() map[string]launch.Task {
	array := task(shoal.JobSpec{Name: "sweep", Command: "python3 t.py --lr {lr} --tag '{tag}' ${tag} {1..3}", Array: "10-30:10",
		Inputs: map[string]string{"data": "/shared/in/{tag}"}, Outputs: map[string]shoal.OutputDir{"model": {Path: "/shared/out"}, "log": {Path: "/shared/log/", Reuse: true}},
		Env: map[string]string{"RATE": "{lr}", "MASTER_PORT": "1", "SHOAL_JOB_ID": "forged"}, Stdout: "out-%j-%a-%n-%x.txt", Signal: "SIGUSR1@90s",
		Resources: shoal.Resources{CPUs: 1000, Memory: 1 << 30}}, 1)
	array.Item = shoal.Item(`{"lr":0.5,"tag":"x y","more":[1, 2]}`)
	array.Position, array.Attempt.Index, array.Attempt.Attempt, array.Attempt.Memory = 1, 20, 3, 2<<30
	list := task(shoal.JobSpec{Tasks: []shoal.TaskSpec{{Name: "a", Command: "echo a"}, {Name: "b", Command: "echo b", Env: map[string]string{"X": "task"}}},
		Env: map[string]string{"X": "job", "Y": "job"}, Prepare: "make ready > $SHOAL_JOB_SCRATCH/log"}, 1)
	list.Position, list.Attempt.Index = 1, 1
	release := task(shoal.JobSpec{Command: "run", Release: "rm -r /tmp/x", Prepare: "p", Launcher: "mpi", Outputs: map[string]shoal.OutputDir{"o": {Path: "/o"}}}, 1)
	release.Attempt.Index, release.Attempt.Release = -1, true
	tf := task(shoal.JobSpec{Command: "tf.sh", Workdir: "$AZ_BATCHAI_JOB_MOUNT_ROOT/scripts", Dialect: "batchai", Stdout: "${AZ_BATCHAI_JOB_MOUNT_ROOT}/logs/%j/stdout-%n.txt",
		Inputs:  map[string]string{"DATASET": "$AZ_BATCHAI_JOB_MOUNT_ROOT/data"},
		Outputs: map[string]shoal.OutputDir{"MODEL": {Path: "$AZ_BATCHAI_JOB_MOUNT_ROOT/logs/Models"}},
		Env: map[string]string{"AZ_BATCHAI_JOB_MOUNT_ROOT": "/mounts", "AZ_BATCHAI_PS_COUNT": "1", "AZ_BATCHAI_WORKER_COUNT": "3",
			"WHERE": "$AZ_BATCHAI_INPUT_DATASET:${AZ_BATCHAI_UNKNOWN}:$HOME"}}, 2)
	sbatch := task(shoal.JobSpec{Name: "rule", Command: "sh script", Dialect: "slurm", Launcher: "head", Array: "1-9:4", Workdir: "/shared/w",
		Env:       map[string]string{"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "theirs"},
		Resources: shoal.Resources{CPUs: 2000, Memory: 512 << 20, GPUs: 1}}, 2)
	sbatch.Position, sbatch.Attempt.Index, sbatch.Attempt.Attempt = 1, 5, 2
	line := task(shoal.JobSpec{Command: "convert {name}"}, 1)
	line.Item = shoal.Item(`"a \"line\""`)
	return map[string]launch.Task{
		"item":        line,
		"plain":       task(shoal.JobSpec{Command: "true"}, 1),
		"array":       array,
		"tasks":       list,
		"release":     release,
		"each":        task(shoal.JobSpec{Command: "python3 train.py", Resources: shoal.Resources{GPUs: 1}}, 2),
		"processes":   task(shoal.JobSpec{Command: "python3 'train it.py'", Processes: 3, Dialect: "batchai"}, 2),
		"head":        task(shoal.JobSpec{Command: "mpirun hostname", Launcher: "head"}, 2),
		"mpi":         task(shoal.JobSpec{Command: "python3 -c 'print(\"it'\"'\"'s\")'", Launcher: "mpi", Workdir: "/shared/it's"}, 2),
		"mpi-image":   task(shoal.JobSpec{Command: "hostname", Launcher: "mpi", Container: &shoal.Container{Image: "debian"}}, 2),
		"mpi-one":     task(shoal.JobSpec{Command: "hostname", Launcher: "mpi", Processes: 3}, 1),
		"mpi-few":     task(shoal.JobSpec{Command: "hostname", Launcher: "mpi", Processes: 1, Dialect: "slurm"}, 2),
		"batchai-tf":  tf,
		"slurm-array": sbatch,
	}
}

// TestOrders compares the orders of all nodes with golden files.
func TestOrders(t *testing.T) {
	t.Parallel()
	for name, task := range cases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			for rank := range task.Nodes {
				o := launch.Order(task, rank)
				files := o.Files
				o.Files = nil
				text, err := json.MarshalIndent(o, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&b, "== rank %d\n%s\n", rank, text)
				for _, f := range slices.Sorted(maps.Keys(files)) {
					if f != "env" { // it is Env once more; TestShell reads it
						fmt.Fprintf(&b, "-- %s\n%s", f, files[f])
					}
				}
			}
			golden := "testdata/" + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("differs from %s (-want +got); -update writes it:\n%s", golden, diff)
			}
		})
	}
}
