package gpu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/internal/need"
)

// patience is how long a test waits for what takes a moment.
const patience = 2 * time.Minute

// tree makes a root with device nodes, whose numbers are those of harmless devices, and other files.
func tree(t *testing.T, nodes map[string]uint32, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range nodes {
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Skipf("cannot make a device: %v", err)
		}
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		need.Script(t, path, text)
	}
	return root
}

// said is what nvidia-smi writes of two GPUs, shortened.
func said(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/two.xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func script(text string) map[string]string {
	return map[string]string{"usr/bin/nvidia-smi": "#!/bin/sh\n" + text}
}

func numbers(list ...int) []int { return list }

// TestFind: GPUs are numbered in the order of their nodes, and what only looks like one is none.
func TestFind(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]uint32{"nvidia10": 3, "nvidia2": 5, "nvidiactl": 7, "nvidia-uvm": 8, "nvidiax": 9, "null": 3},
		map[string]string{"dev/nvidia3": "a file", "dev/nvidia-caps/nvidia-cap1": "x"})
	d, err := gpu.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	want := gpu.Devices{GPUs: []gpu.GPU{{Number: 0, Device: gpu.Device{Path: "/dev/nvidia2", Major: 1, Minor: 5}},
		{Number: 1, Device: gpu.Device{Path: "/dev/nvidia10", Major: 1, Minor: 3}}},
		Shared: []gpu.Device{{Path: "/dev/nvidia-uvm", Major: 1, Minor: 8}, {Path: "/dev/nvidiactl", Major: 1, Minor: 7}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	if d, err := gpu.Find(filepath.Join(root, "nowhere")); err != nil || len(d.GPUs) > 0 {
		t.Errorf("a host without /dev: %v, %v", d, err)
	}
}

// TestDescribe: what nvidia-smi says belongs to the node with its minor, and names a GPU to its user.
func TestDescribe(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]uint32{"nvidia0": 3, "nvidia1": 5, "nvidia7": 8}, script("cat <<'E'\n"+said(t)+"\nE\n"))
	d, err := gpu.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Visible(numbers(1, 2), false), "1,2"; got != want {
		t.Errorf("undescribed: %q, want %q", got, want)
	}
	if got, want := d.Visible(numbers(1, 2), true), "0,1"; got != want {
		t.Errorf("undescribed and alone: %q, want %q", got, want)
	}
	tool, ok := gpu.FindTool(root)
	if !ok {
		t.Fatal("no nvidia-smi")
	}
	tool.Patience = patience
	list, err := tool.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []gpu.Said{{Minor: 1, UUID: "GPU-aaaa-1", Name: "NVIDIA H100", Memory: 81559 << 20, Used: 1000 << 20, Busy: 73, Processes: []gpu.Process{{PID: 4242, Memory: 990 << 20}}},
		{Minor: 0, UUID: "GPU-bbbb-0", Name: "NVIDIA H100", Memory: 81559 << 20}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
	d = d.Describe(list)
	if got, want := d.Visible(numbers(0, 1, 2), true), "GPU-bbbb-0,GPU-aaaa-1,2"; got != want {
		t.Errorf("described: %q, want %q", got, want)
	}
	if got := d.Others(numbers(1)); len(got) != 2 || got[0].Path != "/dev/nvidia0" || got[1].Path != "/dev/nvidia7" {
		t.Errorf("others: %v", got)
	}
	if got := d.Visible(nil, true); got != "" {
		t.Errorf("of none: %q", got)
	}
}

// TestTrouble: a driver in trouble costs a bounded time and gives a reason.
func TestTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, want string
		patience   time.Duration
	}{
		"fails":   {"echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9", "could not communicate", patience},
		"nothing": {"exit 0", "cannot read", patience},
		"no xml":  {"head -c 3000000 /dev/zero", "cannot read", patience},
		"hangs":   {"exec sleep 600", "does not answer", 50 * time.Millisecond},
		"lingers": {"sleep 600 & wait", "does not answer", 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tool, ok := gpu.FindTool(tree(t, nil, script(c.text)))
			if !ok {
				t.Fatal("no nvidia-smi")
			}
			tool.Patience = c.patience
			if _, err := tool.Ask(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, ok := gpu.FindTool(t.TempDir()); ok {
		t.Error("there is an nvidia-smi where there is nothing")
	}
}

// TestWatch: whoever wants to know does not wait, and hears why nothing is known.
func TestWatch(t *testing.T) {
	t.Parallel()
	root := tree(t, nil, script("[ -e "+"\"$0.broken\" ] && exit 1; cat <<'E'\n"+said(t)+"\nE\n"))
	tool, _ := gpu.FindTool(root)
	tool.Patience = patience
	w := gpu.NewWatch(tool, 0)
	if list, err := w.First(t.Context()); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if err := os.WriteFile(tool.Path+".broken", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for {
		list, err := w.Latest()
		if err != nil {
			if list != nil {
				t.Errorf("old news: %v", list)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	hung := gpu.NewWatch(gpu.Tool{Path: "/bin/sleep"}, time.Hour) // it fails, of its arguments
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hung.First(ctx); err == nil || errors.Is(err, gpu.ErrSilent) {
		t.Errorf("%v", err)
	}
}

// TestDriver: libraries and tools are found where distributions put them, and links mean what they mean below the root.
func TestDriver(t *testing.T) {
	t.Parallel()
	root := tree(t, nil, map[string]string{
		"usr/lib/x86_64-linux-gnu/libcuda.so.1":        "-> /etc/alternatives/libcuda",
		"etc/alternatives/libcuda":                     "-> ../../usr/lib/nvidia/libcuda.so.535.1",
		"usr/lib/nvidia/libcuda.so.535.1":              "library",
		"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1":   "library",
		"usr/lib/x86_64-linux-gnu/libnvidia-gone.so.1": "-> nowhere",
		"usr/lib/x86_64-linux-gnu/libnvidia-loop.so.1": "-> libnvidia-loop.so.1",
		"usr/lib/x86_64-linux-gnu/libcudart.so.12":     "CUDA's own",
		"usr/lib64/libnvidia-ml.so.1":                  "another",
		"usr/bin/nvidia-smi":                           "tool",
		"usr/bin/nvidia-settings":                      "not for machines",
	})
	machine := tree(t, nil, map[string]string{"usr/lib64/libc.so": "x"})
	var got []string
	for _, f := range gpu.Driver(root, machine) {
		got = append(got, strings.TrimPrefix(f.From, root)+" "+f.To)
	}
	want := []string{"/usr/lib/nvidia/libcuda.so.535.1 /usr/lib64/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 /usr/lib64/libnvidia-ml.so.1",
		"/usr/bin/nvidia-smi /usr/bin/nvidia-smi"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
