package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// gpus are the machine's. Nil: it has none.
type gpus struct {
	devices gpu.Devices
	watch   *gpu.Watch // nil: there is no nvidia-smi
	note    string
	mode    uint32
}

// gpuEvery is how often nvidia-smi is asked. It costs a fraction of a second of a processor.
const gpuEvery = 20 * time.Second

// modeFile holds the permissions that the GPUs' nodes had when the machine started. Later some may be a task's.
const modeFile = agentDir + "/gpu-mode"

// firstTime is how long an agent that starts waits for nvidia-smi. What it says later is used as well.
const firstTime = 5 * time.Second

// findGPUs looks for GPUs, and asks what they are.
func findGPUs(ctx context.Context, log *slog.Logger) *gpus {
	found, err := gpu.Find("/")
	if err != nil {
		log.Warn("GPUs cannot be found", "error", err)
	}
	if len(found.GPUs) == 0 {
		return nil
	}
	g := &gpus{devices: found, mode: firstMode(found.GPUs[0].Device.Path)}
	if tool, ok := gpu.FindTool("/"); ok {
		g.watch = gpu.NewWatch(tool, gpuEvery)
		ctx, cancel := context.WithTimeout(ctx, firstTime)
		defer cancel()
		_, _ = g.watch.First(ctx) // what is wrong goes with the load
	} else {
		g.note = "their use is not seen: there is no nvidia-smi"
	}
	return g
}

// firstMode reads the permissions of a node as they were at the machine's start.
func firstMode(path string) uint32 {
	if b, err := os.ReadFile(modeFile); err == nil {
		if mode, err := strconv.ParseUint(strings.TrimSpace(string(b)), 8, 12); err == nil {
			return uint32(mode)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0o600
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0o600
	}
	mode := st.Mode & 0o666
	_ = os.WriteFile(modeFile, fmt.Appendf(nil, "%o\n", mode), 0o600) // without it the next agent looks again
	return mode
}

// settings are what tasks are started with.
func (g *gpus) settings() *tasks.GPUs {
	if g == nil {
		return nil
	}
	s := &tasks.GPUs{Mode: g.mode}
	for _, x := range g.devices.GPUs {
		s.Nodes = append(s.Nodes, x.Device)
	}
	return s
}

// adapt names an order's GPUs as CUDA knows them: its own numbers mean others once some cannot be seen.
func (g *gpus) adapt(o api.TaskOrder) api.TaskOrder {
	const name = "CUDA_VISIBLE_DEVICES"
	plain := gpu.Devices{}.Visible(o.GPUs, false)
	if g == nil || o.Env[name] != plain { // the job has its own idea
		return o
	}
	devices := g.devices
	if g.watch != nil {
		if said, err := g.watch.Latest(); err == nil {
			devices = devices.Describe(said)
		}
	}
	visible := devices.Visible(o.GPUs, true)
	o.Env = maps.Clone(o.Env)
	o.Env[name] = visible
	if text, ok := o.Files["env"]; ok { // the same for who comes from another node
		o.Files = maps.Clone(o.Files)
		o.Files["env"] = strings.Replace(text, "export "+name+"='"+plain+"'\n", "export "+name+"='"+visible+"'\n", 1)
	}
	return o
}

// idleMemory is more than a GPU has in use for itself.
const idleMemory = 768 << 20

// inUse reports whether some work is on a GPU, as far as nvidia-smi says.
func (g *gpus) inUse() bool {
	if g == nil || g.watch == nil {
		return false
	}
	said, err := g.watch.Latest()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(said, func(s gpu.Said) bool { return len(s.Processes) > 0 || s.Busy > 0 || s.Used > idleMemory })
}

// load adds what the GPUs do.
func (g *gpus) load(l *shoal.Load) {
	if g == nil {
		return
	}
	l.GPUs, l.GPUNote = len(g.devices.GPUs), g.note
	if g.watch == nil {
		return
	}
	said, err := g.watch.Latest()
	if err != nil {
		l.GPUNote = "their use is not seen: " + err.Error()
		return
	}
	busy := 0
	for _, x := range g.devices.GPUs {
		for _, s := range said {
			if x.Device.Path == "/dev/nvidia"+strconv.Itoa(s.Minor) {
				busy += s.Busy
				l.GPUMemory += s.Used
			}
		}
	}
	l.GPUPercent = busy / len(g.devices.GPUs)
}
