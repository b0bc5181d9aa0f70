package main

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/internal/need"
)

// TestGPUsOfOrders: an order's GPUs are named as CUDA knows them, for its own processes and for those that come from
// other nodes, unless the job has its own idea. What they do goes with the load.
func TestGPUsOfOrders(t *testing.T) {
	t.Parallel()
	smi := filepath.Join(t.TempDir(), "nvidia-smi")
	text := `#!/bin/sh
gpu() { echo "<gpu><uuid>GPU-$1</uuid><minor_number>$1</minor_number><fb_memory_usage><used>$2 MiB</used></fb_memory_usage><utilization><gpu_util>$3 %</gpu_util></utilization></gpu>"; }
echo "<nvidia_smi_log>$(gpu 3 1024 90)$(gpu 0 0 0)$(gpu 9 5 5)</nvidia_smi_log>"
`
	need.Script(t, smi, text)
	g := &gpus{devices: gpu.Devices{GPUs: []gpu.GPU{{Number: 0, Device: gpu.Device{Path: "/dev/nvidia0"}}, {Number: 1, Device: gpu.Device{Path: "/dev/nvidia3"}}}},
		watch: gpu.NewWatch(gpu.Tool{Path: smi}, time.Hour)}
	if _, err := g.watch.First(t.Context()); err != nil {
		t.Fatal(err)
	}
	order := api.TaskOrder{GPUs: []int{1}, Env: map[string]string{"CUDA_VISIBLE_DEVICES": "1", "A": "b"},
		Files: map[string]string{"env": "export A='b'\nexport CUDA_VISIBLE_DEVICES='1'\n", "rank": "x"}}
	got := g.adapt(order)
	if got.Env["CUDA_VISIBLE_DEVICES"] != "GPU-3" || got.Files["env"] != "export A='b'\nexport CUDA_VISIBLE_DEVICES='GPU-3'\n" || got.Files["rank"] != "x" {
		t.Errorf("%+v", got)
	}
	if order.Env["CUDA_VISIBLE_DEVICES"] != "1" {
		t.Error("the order itself was changed")
	}
	own := api.TaskOrder{GPUs: []int{1}, Env: map[string]string{"CUDA_VISIBLE_DEVICES": "mine"}}
	if got := g.adapt(own).Env["CUDA_VISIBLE_DEVICES"]; got != "mine" {
		t.Errorf("the job's own became %q", got)
	}
	none := api.TaskOrder{Env: map[string]string{"CUDA_VISIBLE_DEVICES": ""}}
	if got := g.adapt(none).Env["CUDA_VISIBLE_DEVICES"]; got != "" {
		t.Errorf("none became %q", got)
	}
	var load shoal.Load
	g.load(&load)
	if want := (shoal.Load{GPUs: 2, GPUPercent: 45, GPUMemory: 1 << 30}); !reflect.DeepEqual(load, want) {
		t.Errorf("got %+v, want %+v", load, want)
	}
	if !g.inUse() {
		t.Error("nobody's work is on them")
	}
	var no *gpus
	no.load(&load)
	if no.adapt(order).Env["CUDA_VISIBLE_DEVICES"] != "1" || no.inUse() || no.settings() != nil {
		t.Error("a machine without GPUs changes orders")
	}
}
