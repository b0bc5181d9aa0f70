package submit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// write makes files in a directory of the test's own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// parse reads flags as a command line has them.
func parse(t *testing.T, line ...string) (*Flags, error) {
	t.Helper()
	var o Flags
	cmd := &cobra.Command{}
	o.Bind(cmd)
	return &o, cmd.ParseFlags(line)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	o, err := parse(t, "--array", "1-100%5", "--label", "a=b", "-l", "c=d=e", "--preemptible=false", "--retries", "2", "--retry-on", "oom,exit", "--retry-memory", "2x", "--input", "data=/d",
		"--output-dir", "model=/m", "--container", "img", "--signal", "USR1@60s", "--requeue", "never", "--idempotent", "--on-node-loss", "continue", "--launcher", "mpi", "--processes", "4", "--after", "17:any")
	if err != nil {
		t.Fatal(err)
	}
	j, err := o.Spec(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	j.Command = "x"
	spec.DefaultJob(&j)
	if m := spec.CheckJob(j); len(m) > 0 {
		t.Errorf("%+v", m)
	}
	if j.Array != "1-100" || j.MaxRunning != 5 || j.Labels["c"] != "d=e" || j.Preemptible == nil || *j.Preemptible || j.Retry.Memory != 2 || len(j.Retry.On) != 2 || j.Inputs["data"] != "/d" ||
		j.Outputs["model"].Path != "/m" || j.Container.Image != "img" || j.Processes != 4 || j.After[0].Condition != shoal.AfterAny {
		t.Errorf("got %+v", j)
	}
	for _, line := range []string{"--array 1-10%0", "--array 1-10%x", "--nodes 0", "--after :x", "--memory much"} {
		if _, err := parse(t, strings.Fields(line)...); err == nil {
			t.Errorf("%s is taken", line)
		}
	}
	for _, line := range []string{"--label a", "--env NOTHING", "--retry-memory 0.1x", "--input =x"} {
		o, err := parse(t, strings.Fields(line)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Spec(func(string) string { return "" }); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestItems(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"lines": "a b\r\n\nc\n", "list": "[1, {\"x\": [2, 3]}, \"s\"]\n", "stream": "{\"a\": 1}\n{\"a\": 2}\n", "bad": "[1,\n2,\n", "after": "[1] 2", "none": "\n", "zero": "a\x00b",
		"sweep": "parameters: {A: [1, 2], F: {files: \"l*\"}}\n", "x.csv": "", "y.csv": ""})
	for _, tt := range []struct {
		flags, want string
		n           int
	}{
		{"--items lines", `"a b"`, 2}, {"--each lines:lines", `"a b"`, 2}, {"--items-json list", "1", 3}, {"--each json:stream", `{"a":1}`, 2},
		{"--sweep sweep", `{"A":1,"F":"lines"}`, 4}, {"--param LR=log:0.01:1:3 --param D=2,x", `{"D":2,"LR":0.01}`, 6}, {"--param N=step:1:9:4", `{"N":1}`, 3},
		{"--param X=linear:0:1 --search random --count 4", "", 4}, {"--param F=files:*.csv", `{"F":"x.csv"}`, 2}, {"", "", 0},
		{"--param ID=007,20240101123456789", `{"ID":"007"}`, 2}, {"--param ID=20240101123456789", `{"ID":20240101123456789}`, 1},
	} {
		o, err := parse(t, strings.Fields(tt.flags)...)
		if err != nil {
			t.Fatal(err)
		}
		items, err := o.Items.Read(Config{Read: Disk(nil)}.beside(dir+"/script"), Glob(dir))
		if err != nil || len(items) != tt.n || tt.want != "" && string(items[0]) != tt.want {
			t.Errorf("%s: %s, %v %+v", tt.flags, items, err, shoal.MistakesOf(err))
		}
	}
	for flags, msg := range map[string]string{"--items bad --items-json list": "not on several", "--items-json bad": "bad:", "--items-json after": "follows the list", "--items none": "no items", "--items zero": "not text",
		"--each lines": "cannot use --each", "--each csv:x": "cannot use --each", "--items missing": "no such file", "--search random": "for sweeps", "--param A": "cannot use --param", "--param A=1 --param A=2": "twice",
		"--param A=log:0:1:3": "above 0", "--sweep sweep --param A=1": "not both", "--items lines --each lines:lines": "twice"} {
		o, err := parse(t, strings.Fields(flags)...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Items.Read(Config{Read: Disk(nil)}.beside(dir+"/script"), Glob(dir))
		if err == nil || !strings.Contains(err.Error()+spec.Format(shoal.MistakesOf(err)), msg) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"job.json":     `{"properties":{"nodeCount":1,"stdOutErrPathPrefix":"$AZ_BATCHAI_JOB_MOUNT_ROOT/logs","customToolkitSettings":{"commandLine":"echo {LR}"},"containerSettings":{"imageSourceRegistry":{"image":"x"}},"mountVolumes":{"azureFileShares":[{"azureFileUrl":"https://a.b/logs","relativeMountPath":"logs"}]}}}`,
		"train.sh":     "#!/bin/bash\n#SHOAL --cpus 4 --array 1-10%2\n#SHOAL --label team=x\necho hi\n",
		"bad.sh":       "#!/bin/sh\n\n#SHOAL --cpu 4\n",
		"word.sh":      "#!/bin/sh\n#SHOAL x\n",
		"job.yaml":     "kind: Job\nname: a\ncommand: x\n",
		"pool.yaml":    "kind: Pool\nname: lab\n",
		"cluster.json": `{"properties":{"vmSize":"STANDARD_D1","scaleSettings":{"autoScale":{"minimumNodeCount":0,"maximumNodeCount":2}}}}`,
		"server.json":  `{"properties":{"vmSize":"STANDARD_D1","dataDisks":{}}}`,
		"slurm.sh":     "#!/bin/bash\n# a comment\n#SBATCH --array=1-9 --mem=64G\necho hi\n",
		"pbs.sh":       "#!/bin/bash\n#PBS -l walltime=1:00:00\necho hi\n",
		"sge.sh":       "#!/bin/bash\n#$ -pe smp 4\necho hi\n",
		"both.sh":      "#!/bin/bash\n#SBATCH -c 2\n#SHOAL --cpus 2\necho hi\n",
		"late.sh":      "#!/bin/bash\necho hi\n#SBATCH -c 2\n",
		"windows.sh":   "\ufeff#!/bin/bash\r\n#SHOAL --cpus 2\r\necho hi\r\n",
		"latin.sh":     "#!/bin/bash\necho caf\xe9\n",
		"azure.json":   `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "resources": []}`,
		"map":          "# where things are\nlogs=team:/logs\n",
	})
	var notes []string
	c := Config{Read: Disk(nil), Getenv: func(string) string { return "" }, Note: func(f string, a ...any) { notes = append(notes, fmt.Sprintf(f, a...)) }}
	read := func(o Options, names ...string) (spec.Set, error) {
		for i, n := range names {
			names[i] = filepath.Join(dir, n)
		}
		return Jobs(c, names, o)
	}
	mapped := Foreign{Shares: []string{"@" + filepath.Join(dir, "map")}}
	set, err := read(Options{Foreign: mapped, Items: []shoal.Item{shoal.Item(`{"LR":1}`)}, Sets: []string{"container=", "resources.cpus=2", "pool=lab"}}, "job.json")
	if err != nil || len(set.Jobs) != 1 || len(set.Shares) != 0 {
		t.Fatalf("%+v, %v %+v", set, err, shoal.MistakesOf(err))
	}
	if j := set.Jobs[0]; j.Container != nil || j.Resources.CPUs != 2000 || j.Pool != "lab" || j.Stdout != "team:/logs/%j/stdout-%a.txt" || len(j.Items) != 1 || len(notes) != 1 {
		t.Errorf("got %+v, %q", j, notes)
	}
	if set, err = read(Options{}, "job.json"); err != nil || len(set.Shares) != 1 {
		t.Errorf("%+v, %v", set, err)
	}
	if set, err = read(Options{}, "train.sh", "job.yaml"); err != nil || len(set.Jobs) != 2 {
		t.Fatalf("%v %+v", err, shoal.MistakesOf(err))
	}
	if j := set.Jobs[0]; j.Name != "train" || j.Resources.CPUs != 4000 || j.Array != "1-10" || j.MaxRunning != 2 || j.Labels["team"] != "x" || !strings.HasSuffix(j.Command, `exec /bin/bash "$f"`) {
		t.Errorf("got %+v", j)
	}
	for name, msg := range map[string]string{"bad.sh": "bad.sh:3: the options of the script: unknown flag: --cpu", "word.sh": `"x" is no option`, "pool.yaml": "what is no job", "cluster.json": "cluster", "server.json": "file server", "missing": "no such file",
		"slurm.sh": "slurm.sh:3: lines with #SBATCH", "pbs.sh": "pbs.sh:2: lines with #PBS", "sge.sh": "sge.sh:2: lines with #$", "latin.sh": "UTF-8", "azure.json": "deployment template"} {
		if _, err := read(Options{}, name); err == nil || !strings.Contains(err.Error(), msg) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if set, err = read(Options{}, "windows.sh"); err != nil || set.Jobs[0].Resources.CPUs != 2000 || !strings.Contains(set.Jobs[0].Command, "\n#!/bin/bash\n") {
		t.Errorf("%+v, %v", set, err)
	}
	notes = nil
	if set, err = read(Options{}, "both.sh", "late.sh"); err != nil || len(set.Jobs) != 2 || len(notes) != 0 {
		t.Errorf("%v, %q", err, notes)
	}
	if set, err = read(Options{Foreign: Foreign{Lenient: true}}, "slurm.sh"); err != nil || len(set.Jobs) != 1 || !strings.Contains(notes[len(notes)-1], "slurm.sh:3:") {
		t.Errorf("%v, %q", err, notes)
	}
	for _, share := range []string{"logs", "logs=team", "logs=Team:/x", "=team:/x", "@/none", "logs=team:/a/../b"} {
		if _, err := read(Options{Foreign: Foreign{Shares: []string{share}}}, "job.json"); err == nil {
			t.Errorf("--share %s is taken", share)
		}
	}
	if _, err := read(Options{Foreign: mapped}, "job.yaml"); err == nil {
		t.Error("--share without a use is taken")
	}
	files, err := Disk(nil).Files([]string{filepath.Join(dir, "cluster.json"), filepath.Join(dir, "pool.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Objects(c, files, Foreign{Name: "gpu"})
	if err != nil || len(objects.Pools) != 2 || !slices.ContainsFunc(objects.Pools, func(p shoal.Pool) bool { return p.Name == "gpu" && p.Size.Max == 2 }) {
		t.Errorf("%+v, %v", objects, err)
	}
	azure, err := Disk(nil).Files([]string{filepath.Join(dir, "azure.json")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Objects(c, azure, Foreign{}); err == nil || !strings.Contains(shoal.HintOf(err), "shoal deploy --template-file") {
		t.Errorf("a template: %v", err)
	}
	if _, err := Objects(c, files[1:], Foreign{Name: "gpu"}); err == nil {
		t.Error("--name without a use is taken")
	}
}

func TestParseTasks(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]TaskArg{"17": {"17", ""}, "17/3": {"17", "3"}, "17/1-3,7": {"17", "1-3,7"}} {
		if got, err := ParseTasks(arg); err != nil || got != want {
			t.Errorf("%s: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "x", "17/", "17/x", "17/3-1", "/3"} {
		if _, err := ParseTasks(arg); err == nil {
			t.Errorf("%q is taken", arg)
		}
	}
}

func FuzzItems(f *testing.F) {
	f.Add([]byte("[1, {\"a\": 2}]\n"))
	f.Add([]byte("1 \"x\"\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range []func(string, []byte) ([]shoal.Item, error){lineItems, jsonItems} {
			items, err := parse("x", data)
			if err != nil && shoal.KindOf(err) != shoal.KindInvalid {
				t.Fatal(err)
			}
			for _, i := range items {
				if len(i) == 0 {
					t.Fatalf("an empty item of %q", data)
				}
			}
		}
	})
}
