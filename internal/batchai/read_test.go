package batchai_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batchai"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/spec"
)

// job reads a job of these properties that must be right.
func job(t *testing.T, properties string, o batchai.Options) batchai.Job {
	t.Helper()
	j, err := batchai.ReadJob(spec.File{Name: "job.json", Data: []byte(`{"properties":{"nodeCount":2,"stdOutErrPathPrefix":"$AZ_BATCHAI_JOB_TEMP",` + properties + `}}`)}, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, spec.Format(shoal.MistakesOf(err)))
	}
	return j
}

func TestToolkits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text, command, launcher string
		processes                     int
	}{
		{"custom", `"customToolkitSettings":{"commandLine":"echo hi | wc"}`, "echo hi | wc", "head", 0},
		{"mpi", `"customMpiSettings":{"commandLine":"./a.out x","processCount":4}`, "./a.out x", "mpi", 4},
		{"pytorch", `"pyTorchSettings":{"pythonScriptFilePath":"a b.py","commandLineArgs":"--lr 1"}`, `python3 "a b.py" --lr 1`, "each", 0},
		{"pytorch, processes", `"pyTorchSettings":{"pythonScriptFilePath":"a.py","processCount":4,"communicationBackend":"Gloo"}`, "python3 a.py", "each", 4},
		{"pytorch, MPI", `"pyTorchSettings":{"pythonScriptFilePath":"a.py","communicationBackend":"MPI"}`, "python3 a.py", "mpi", 2},
		{"horovod", `"horovodSettings":{"pythonScriptFilePath":"a.py","pythonInterpreterPath":"/opt/py","processCount":"8"}`, "/opt/py a.py", "mpi", 8},
		{"chainer", `"chainerSettings":{"pythonScriptFilePath":"a.py"}`, "python3 a.py", "mpi", 2},
		{"caffe2", `"caffe2Settings":{"pythonScriptFilePath":"a.py","commandLineArgs":"--shard $AZ_BATCHAI_TASK_INDEX"}`, "python3 a.py --shard $AZ_BATCHAI_TASK_INDEX", "each", 0},
		{"caffe", `"caffeSettings":{"configFilePath":"s.prototxt","commandLineArgs":"-gpu all","processCount":2}`, "caffe train -solver s.prototxt -gpu all", "mpi", 2},
		{"caffe, script", `"caffeSettings":{"pythonScriptFilePath":"a.py"}`, "python3 a.py", "mpi", 2},
		{"cntk", `"cntkSettings":{"languageType":"BrainScript","configFilePath":"$AZ_BATCHAI_JOB_TEMP/c.cntk","commandLineArgs":"RootDir=x"}`, `cntk "configFile=$AZ_BATCHAI_JOB_TEMP/c.cntk" RootDir=x`, "mpi", 2},
		{"cntk, python", `"cntkSettings":{"languageType":"python","pythonScriptFilePath":"a.py"}`, "python3 a.py", "mpi", 2},
		{"a word that is not to be run", `"caffe2Settings":{"pythonScriptFilePath":"$(x)` + "`y`" + `$HOME/\"z\""}`, `python3 "\$(x)\` + "`y\\`" + `$HOME/\"z\""`, "each", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := job(t, tt.text, batchai.Options{}).Spec
			if j.Command != tt.command || j.Launcher != tt.launcher || j.Processes != tt.processes || j.Nodes != shoal.Fixed(2) || j.Dialect != "batchai" {
				t.Errorf("got %q by %s, %d processes", j.Command, j.Launcher, j.Processes)
			}
		})
	}
	one, err := batchai.ReadJob(spec.File{Data: []byte(`{"properties":{"nodeCount":1,"stdOutErrPathPrefix":"/x","horovodSettings":{"pythonScriptFilePath":"a.py"},"containerSettings":{"imageSourceRegistry":{"image":"i"}}}}`)}, batchai.Options{})
	if err != nil || one.Spec.Launcher != "each" || one.Spec.Command != "python a.py" {
		t.Errorf("one process is started by itself: %+v, %v", one.Spec, err)
	}
}

// Everything that a job.json can hold, mapped to one share.
func TestWholeJob(t *testing.T) {
	t.Parallel()
	text := `{
	// as the old command line took it
	"$schema": "https://example.org/job.json",
	"name": "train-1", "LOCATION": "eastus",
	"properties": {
		"cluster": {"id": "/subscriptions/x/resourceGroups/g/providers/Microsoft.BatchAI/workspaces/w/clusters/GPU_Nodes"},
		"NodeCount": "2", "schedulingPriority": "High",
		"constraints": {"maxWallClockTime": "1.12:00:00"},
		"pyTorchSettings": {"pythonScriptFilePath": "$AZ_BATCHAI_JOB_MOUNT_ROOT/code/train.py", "commandLineArgs": "--lr {LR} --out ${AZ_BATCHAI_OUTPUT_MODEL}",},
		"stdOutErrPathPrefix": "$AZ_BATCHAI_JOB_MOUNT_ROOT/logs/all",
		"mountVolumes": {
			"azureFileShares": [{"azureFileUrl": "https://acct.file.core.windows.net/logshare", "relativeMountPath": "logs", "credentials": {"accountKeySecretReference": {"secretUrl": "https://v/secrets/Acct_Key/1"}}}],
			"fileServers": [{"fileServer": {"id": "/x/fileservers/NFS1"}, "sourceDirectory": "exports/a", "relativeMountPath": "nfs"}],
			"unmanagedFileSystems": [{"mountCommand": "mount -t nfs4 -o ro filer:/vol/code", "relativeMountPath": "code"}]
		},
		"inputDirectories": [{"id": "DATA", "path": "$AZ_BATCHAI_JOB_MOUNT_ROOT/nfs/mnist"}, {"id": "LOCAL", "path": "$AZ_BATCHAI_JOB_TEMP/x"}, {"id": "ROOT", "path": "/data"}],
		"outputDirectories": [{"id": "MODEL", "pathPrefix": "$AZ_BATCHAI_JOB_MOUNT_ROOT/logs", "pathSuffix": "models/final"}],
		"environmentVariables": [{"name": "EPOCHS", "value": 10}, {"name": "CACHE", "value": "$AZ_BATCHAI_JOB_TEMP/cache"}],
		"secrets": [{"name": "TOKEN", "valueSecretReference": {"sourceVault": {"id": "/v"}, "secretUrl": "https://v.vault/secrets/Wandb-Token/abc"}}],
		"jobPreparation": {"commandLine": "pip install --user x"},
		"containerSettings": {"imageSourceRegistry": {"serverUrl": "https://reg.example.org", "image": "team/torch:1"}, "shmSize": "16gb"}
	}
}`
	shares := map[string]batchai.Place{"logshare": {Share: "team", Path: "/logs"}, "*": {Share: "team", Path: "/"}}
	f := spec.File{Name: "job.json", Data: []byte("\xef\xbb\xbf" + text)}
	golden(t, "whole-mapped", told(f, batchai.Options{Shares: shares}))
	if got := told(f, batchai.Options{Shares: shares, Pool: "lab"}); !strings.Contains(got, "\npool: lab\n") || strings.Contains(got, "the cluster is taken") {
		t.Errorf("with a pool that was named:\n%s", got)
	}
	golden(t, "whole-unmapped", told(f, batchai.Options{Account: "acct", Items: []shoal.Item{shoal.Item(`{"LR":1}`)}}))
	apart := map[string]batchai.Place{"logs": {Share: "team", Path: "/logs"}, "nfs": {Share: "sets", Path: "/nfs"}, "code": {Share: "team", Path: "/src"}, "extra": {Share: "sets", Path: "/e"}}
	golden(t, "whole-apart", told(f, batchai.Options{Shares: apart}))
}

func TestCluster(t *testing.T) {
	t.Parallel()
	text := `{"properties": {"vmSize": "Standard_NC6s_v2", "vmPriority": "lowpriority", "scaleSettings": {"manual": {"targetNodeCount": 2, "nodeDeallocationOption": "requeue"}},
	"virtualMachineConfiguration": {"imageReference": {"publisher": "microsoft-ads", "offer": "linux-data-science-vm-ubuntu", "sku": "linuxdsvmubuntu"}},
	"userAccountSettings": {"adminUserName": "admin", "adminUserSshPublicKey": "ssh-rsa AAAA"}, "subnet": {"id": "/x/subnets/y"},
	"nodeSetup": {"setupTask": {"commandLine": "echo $WHO\ndate", "stdOutErrPathPrefix": "$AZ_BATCHAI_MOUNT_ROOT/logs", "environmentVariables": [{"name": "WHO", "value": "a b"}]},
		"performanceCountersSettings": {"appInsightsReference": {}},
		"mountVolumes": {"azureFileShares": [{"azureFileUrl": "https://acct.file.core.windows.net/s", "relativeMountPath": "logs"}],
			"fileServers": [{"fileServer": {"id": "/x/fileservers/nfs1"}, "relativeMountPath": "nfs"}]}}}}`
	golden(t, "cluster", told(spec.File{Name: "cluster.json", Data: []byte(text)}, batchai.Options{Name: "GPU nodes", Shares: map[string]batchai.Place{"logs": {Share: "team", Path: "/"}}}))
	for size, want := range map[string]shoal.Resources{
		"STANDARD_D1": {CPUs: 1000, Memory: 7 << 29}, "standard_ds14_v2": {CPUs: 16000, Memory: 112 << 30}, "Standard_NC24rs_v3": {CPUs: 24000, Memory: 448 << 30, GPUs: 4},
		"Standard_D64s_v3": {CPUs: 64000, Memory: 256 << 30}, "STANDARD_NV6": {CPUs: 6000, Memory: 56 << 30, GPUs: 1}, "Standard_GS5": {CPUs: 32000, Memory: 448 << 30},
	} {
		c, err := batchai.ReadCluster(spec.File{Data: []byte(`{"vmSize":"` + size + `","scaleSettings":{"autoScale":{"minimumNodeCount":"0","maximumNodeCount":"3"}}}`)}, batchai.Options{Name: "x"})
		if err != nil || c.Pool.Machine != want || c.Pool.Size != (shoal.Size{Max: 3}) {
			t.Errorf("%s: %+v, %v", size, c.Pool.Machine, err)
		}
	}
}

// What is wrong is said with its place, and with what was probably meant.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"keys": `{
  "properties": {
    "nodeCounts": 2,
    "customToolkitSettings": {"comandLine": "x"},
    "mountVolumes": {"azureFileShare": []},
    "priority": 5,
    "constraints": {"maxWallClockTime": "soon"},
    "outputDirectories": [{"id": "A B", "pathPrefix": "/x"}, {"pathPrefix": "/y"}]
  }
}`,
		"references": `{"properties": {"nodeCount": 1, "stdOutErrPathPrefix": "$AZ_BATCHAI_JOB_MOUNT_ROOT/log",
  "caffe2Settings": {"pythonScriptFilePath": "$AZ_BATCHAI_INPUT_DATE/x.py", "commandLineArgs": "$AZ_BATCHAI_TASKINDEX ${AZ_BATCHAI_OUTPUT_x} $AZ_FOO"},
  "inputDirectories": [{"id": "DATA", "path": "/data"}],
  "mountVolumes": {"azureFileShares": [{"azureFileUrl": "https://a.file.core.windows.net/logs", "relativeMountPath": "logs"}]}}}`,
		"secrets": `{"properties": {"nodeCount": 1, "stdOutErrPathPrefix": "/x", "customToolkitSettings": {"commandLine": "x"},
  "secrets": [{"name": "A", "value": "hunter2"}, {"name": "B"}],
  "mountVolumes": {"azureFileShares": [{"azureFileUrl": "https://a.file.core.windows.net/logs", "relativeMountPath": "logs", "credentials": {"accountKey": "hunter2"}}]},
  "containerSettings": {"imageSourceRegistry": {"image": "x", "credentials": {"username": "u", "password": "hunter2"}}}}}`,
		"toolkits": `{"properties": {"nodeCount": 0, "customToolkitSettings": {"commandLine": "x"}, "customMpiSettings": {}, "schedulingPriority": "urgent"}}`,
		"types":    `{"properties": {"nodeCount": "two", "customToolkitSettings": ["x"], "inputDirectories": {"id": "x"}, "secrets": [[1]], "stdOutErrPathPrefix": {}}}`,
		"cut":      `{"properties": {"nodeCount": 1, "customToolkitSettings": {"commandLine": "ec`,
		"syntax":   "{\n  \"properties\": {\n    \"nodeCount\": 1,\n    nodeCount: 2\n  }\n}",
		"after":    `{"properties": {"nodeCount": 1}} {}`,
		"twice":    `{"properties": {"nodeCount": 1, "nodeCount": 2, "stdOutErrPathPrefix": "/x", "customToolkitSettings": {"commandLine": "x"}}}`,
		"cluster":  `{"properties": {"vmSize": "STANDARD_NC7", "vmPriority": "spot", "scaleSettings": {"autoScale": {"minimumNodeCount": 3, "maximumNodeCount": 1}, "manuel": {}}}}`,
		"names": `{"properties": {"nodeCount": 1, "stdOutErrPathPrefix": "/x", "customToolkitSettings": {"commandLine": "x"}, "mountVolumes": {
  "azureFileShares": [{"azureFileUrl": "https://a.file.core.windows.net/one", "relativeMountPath": "my_data"}, {"azureFileUrl": "https://a.file.core.windows.net/two", "relativeMountPath": "My-Data"},
    {"azureFileUrl": "https://a.file.core.windows.net/one", "relativeMountPath": "my-data"}]}}}`,
		"mounts": `{"properties": {"nodeCount": 1, "stdOutErrPathPrefix": "/x", "customToolkitSettings": {"commandLine": "x"}, "mountVolumes": {
  "azureFileShares": [{"azureFileUrl": "nonsense", "relativeMountPath": "a"}, {"azureFileUrl": "https://a.b/c", "relativeMountPath": "../b"}, {"azureFileUrl": "https://a.b/c"}],
  "azureBlobFileSystems": [{"accountName": "x", "containerName": "y", "relativeMountPath": "c"}],
  "unmanagedFileSystems": [{"mountCommand": "mount -t cifs x", "relativeMountPath": "d"}, {"mountCommand": "mount -t nfs h:/x", "relativeMountPath": "e"}, {"mountCommand": "mount -t nfs h:/x", "relativeMountPath": "e"}]}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := spec.File{Name: name + ".json", Data: []byte(text)}
			got := "strict:\n\n" + told(f, batchai.Options{Name: "x"}) + "\nlenient:\n\n" + told(f, batchai.Options{Name: "x", Lenient: true})
			if strings.Contains(got, "hunter2") {
				t.Error("a secret was printed")
			}
			golden(t, "mistakes-"+name, got)
		})
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"large":       `{"properties":{"nodeCount":1,"x":"` + strings.Repeat("x", spec.MaxSize) + `"}}`,
		"deep":        `{"properties":{"nodeCount":` + strings.Repeat("[", 100_000),
		"deep maps":   `{"properties":` + strings.Repeat(`{"a":`, 100_000),
		"many":        `{"properties":{"nodeCount":[` + strings.Repeat("1,", 300_000) + `1]}}`,
		"not UTF-8":   "{\"properties\":{\"nodeCount\":\"\xff\xfe\"}}",
		"not text":    "{\"properties\":\x00\x01{\"nodeCount\":1}}",
		"no end":      `{"properties":{/* nodeCount`,
		"a list":      `[1]`,
		"nothing":     ``,
		"a word":      `"properties"`,
		"quote":       `{"properties":{"nodeCount":"\`,
		"null within": `{"properties":null,"nodeCount":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, lenient := range []bool{false, true} {
				_, err := batchai.ReadJob(spec.File{Name: "x", Data: []byte(text)}, batchai.Options{Lenient: lenient})
				if m := shoal.MistakesOf(err); shoal.KindOf(err) != shoal.KindInvalid || len(m) == 0 || len(m) > 100 {
					t.Errorf("got %v with %d mistakes", err, len(m))
				}
			}
		})
	}
}

// The processes that TensorFlow's script starts see what they need, and servers end with the last worker.
func TestTensorFlowScript(t *testing.T) {
	t.Parallel()
	j := job(t, `"tensorFlowSettings":{"pythonScriptFilePath":"train.py","pythonInterpreterPath":"fake","masterCommandLineArgs":"M","workerCommandLineArgs":"W","parameterServerCommandLineArgs":"P $AZ_BATCHAI_TASK_INDEX",
		"workerCount":3,"parameterServerCount":1}`, batchai.Options{}).Spec
	dir := t.TempDir()
	fake := "#!/bin/sh\necho \"$2 $3 $AZ_BATCHAI_TASK_INDEX $TF_CONFIG\" >>\"$SEEN\"\ncase $2 in P) exec sleep 100 ;; W) sleep 0.2 ;; esac\n[ \"$FAIL\" != \"$AZ_BATCHAI_TASK_INDEX\" ] || exit 7\n"
	need.Script(t, filepath.Join(dir, "fake"), fake)
	start := func(node, fail string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		t.Cleanup(cancel)
		c := exec.CommandContext(ctx, "/bin/sh", "-c", j.Command)
		c.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "SEEN=" + dir + "/seen" + node + fail, "FAIL=" + fail, "SHOAL_NODE_RANK=" + node, "SHOAL_NODE_COUNT=2", "SHOAL_TASK_INDEX=0", "SHOAL_ATTEMPT=1" + fail,
			"AZ_BATCHAI_WORKER_COUNT=3", "AZ_BATCHAI_PS_COUNT=1", "AZ_BATCHAI_PS_HOSTS=a:1", "AZ_BATCHAI_WORKER_HOSTS=a:2,b:2,a:3", "AZ_BATCHAI_SHARED_JOB_TEMP=" + dir}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second := start("0", ""), start("1", "")
	if err := first.Wait(); err != nil {
		t.Errorf("node 0: %v", err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("node 1: %v", err)
	}
	config := func(kind, index string) string {
		return `{"cluster":{"ps":["a:1"],"worker":["a:2","b:2","a:3"]},"task":{"type":"` + kind + `","index":` + index + `}}`
	}
	for node, want := range map[string][]string{"0": {"M  0 " + config("worker", "0"), "P 0 0 " + config("ps", "0"), "W  2 " + config("worker", "2")}, "1": {"W  1 " + config("worker", "1")}} {
		text, err := os.ReadFile(dir + "/seen" + node)
		got := strings.Split(strings.TrimSpace(string(text)), "\n")
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("node %s: %v\n%s", node, err, diff)
		}
	}
	failed := start("0", "2")
	if err := failed.Wait(); err == nil || failed.ProcessState.ExitCode() != 7 {
		t.Errorf("a worker's failure: %v", err)
	}
	if pids, err := exec.Command("pgrep", "-f", dir+"/fake").Output(); err == nil && len(pids) > 0 {
		for pid := range strings.FieldsSeq(string(pids)) {
			_ = exec.Command("kill", pid).Run() // on a machine the end of the task takes them along
		}
	}
}

// The links that stand for mounts on several shares lead there, however many processes make them.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"team/logs", "sets/mnist"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	j := job(t, `"customMpiSettings":{"commandLine":"cd -P $AZ_BATCHAI_JOB_MOUNT_ROOT/a/data && pwd; cd -P $AZ_BATCHAI_JOB_MOUNT_ROOT/logs && pwd; echo $WHERE"},
		"environmentVariables":[{"name":"WHERE","value":"$AZ_BATCHAI_JOB_MOUNT_ROOT/logs"}],
		"mountVolumes":{"azureFileShares":[{"azureFileUrl":"https://a.b/c","relativeMountPath":"logs"},{"azureFileUrl":"https://a.b/d","relativeMountPath":"a/data"}]}`,
		batchai.Options{Shares: map[string]batchai.Place{"logs": {Share: "team", Path: "/logs"}, "a/data": {Share: "sets", Path: "/mnist"}}}).Spec
	for range 2 {
		c := exec.Command("/bin/sh", "-c", j.Command)
		c.Env = []string{"PATH=/usr/bin:/bin", "SHOAL_SCRATCH=" + dir, "SHOAL_SHARE_TEAM=" + dir + "/team", "SHOAL_SHARE_SETS=" + dir + "/sets"}
		out, err := c.CombinedOutput()
		if want := dir + "/sets/mnist\n" + dir + "/team/logs\n" + dir + "/mounts/job/logs\n"; string(out) != want || err != nil {
			t.Errorf("%v: got %s, want %s", err, out, want)
		}
	}
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]batchai.Kind{
		"": "", "kind: Pool\n": "", `{"kind":"Job","properties":{}}`: "", `{"properties":{"nodeCount":1}}`: "job", `{"NODECOUNT":1}`: "job",
		"\xef\xbb\xbf// x\n{\"properties\":{\"vmSize\":1}}": "cluster", `{"properties":{"vmSize":"x","dataDisks":{}}}`: "fileServer", `{"scaleSettings":{}}`: "cluster", `{"$schema":"https://x/BatchAI/schemas/cluster.json"}`: "cluster",
		`{"properties":{"vmSize":`: "cluster", `{"properties":{`: "job", `{"kind":`: "", `{"a":1}`: "", `[1]`: "",
	} {
		if got := batchai.Detect([]byte(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range cases(f) {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte(`{"vmSize":"standard_","scaleSettings":{"manual":{"targetNodeCount":1}}} // x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 32<<10 {
			return
		}
		for _, lenient := range []bool{false, true} {
			o := batchai.Options{Lenient: lenient, Shares: map[string]batchai.Place{"logs": {Share: "team", Path: "/logs"}}}
			file := spec.File{Name: "x", Data: data}
			j, err := batchai.ReadJob(file, o)
			whole(t, spec.Set{Jobs: []shoal.JobSpec{j.Spec}}, err)
			c, err := batchai.ReadCluster(file, o)
			whole(t, spec.Set{Pools: []shoal.Pool{c.Pool}, Shares: c.Shares}, err)
		}
	})
}

// whole is either mistakes, or what can be written as documents.
func whole(t *testing.T, set spec.Set, err error) {
	if err != nil {
		if shoal.KindOf(err) != shoal.KindInvalid || len(shoal.MistakesOf(err)) == 0 {
			t.Fatalf("%v without mistakes", err)
		}
		return
	}
	if _, err := spec.Documents(set); err != nil {
		t.Fatal(err)
	}
}
