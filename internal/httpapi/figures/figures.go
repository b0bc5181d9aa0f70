// Package figures counts what is in a store, for Prometheus.
package figures

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// New makes the handler of /metrics. Figures are counted when they are asked for, from the store; their
// labels are pools and states only, so that their number is bounded. More are others' figures.
func New(db *store.DB, more ...prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newFigures(db))
	r.MustRegister(more...)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 30 * time.Second})
}

// figures counts what is in the store.
type figures struct {
	store                          *store.DB
	machines, sessions, jobs, task *prometheus.Desc
	apps, size, rev                *prometheus.Desc
	gpus, gpuBusy, gpuMemory       *prometheus.Desc
}

func newFigures(db *store.DB) *figures {
	byState := []string{"pool", "state"}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("shoal_"+name, help, labels, nil)
	}
	return &figures{store: db,
		machines:  desc("machines", "Machines by pool and state.", byState...),
		sessions:  desc("sessions", "Sessions that have not ended, by pool and state.", byState...),
		apps:      desc("apps", "Users' web apps that have not ended, by pool and state.", byState...),
		jobs:      desc("jobs", "Jobs that have not ended, by pool and state.", byState...),
		task:      desc("tasks", "Tasks of jobs that have not ended, by pool and state.", byState...),
		size:      desc("pool_size_max", "The most machines a pool may have.", "pool"),
		gpus:      desc("gpus", "GPUs of the ready machines of a pool.", "pool"),
		gpuBusy:   desc("gpus_busy", "How many of a pool's GPUs the parts that are busy make up, as nvidia-smi tells.", "pool"),
		gpuMemory: desc("gpu_memory_used_bytes", "Memory in use on the GPUs of a pool.", "pool"),
		rev:       desc("store_revision", "The store's revision: it grows with every change."),
	}
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.machines, f.sessions, f.apps, f.jobs, f.task, f.size, f.rev, f.gpus, f.gpuBusy, f.gpuMemory} {
		ch <- d
	}
}

// gpuUse is how the GPUs of a pool are used.
type gpuUse struct {
	number int
	busy   float64
	memory shoal.Bytes
}

// tally counts by pool and state.
type tally map[[2]string]int

func (t tally) add(pool shoal.PoolName, state string, n int) {
	if n != 0 {
		t[[2]string{string(pool), state}] += n
	}
}

func (t tally) send(ch chan<- prometheus.Metric, d *prometheus.Desc) {
	for _, k := range slices.SortedFunc(maps.Keys(t), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(t[k]), k[0], k[1])
	}
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	machines, sessions, apps, jobs, tasks := tally{}, tally{}, tally{}, tally{}, tally{}
	sizes := map[shoal.PoolName]int{}
	gpus := map[shoal.PoolName]gpuUse{}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := f.store.View(ctx, func(tx *store.Tx) error {
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		for _, p := range pools {
			sizes[p.Name] = p.Size.Max
		}
		all, err := tx.LiveMachines()
		if err != nil {
			return err
		}
		for _, m := range all {
			machines.add(m.Pool, m.Shown(), 1)
			if m.State == shoal.MachineReady && m.Resources.GPUs > 0 {
				g := gpus[m.Pool]
				g.number += m.Resources.GPUs
				g.busy += float64(m.Resources.GPUs*m.Load.GPUPercent) / 100
				g.memory += m.Load.GPUMemory
				gpus[m.Pool] = g
			}
		}
		live, err := tx.LiveSessions()
		if err != nil {
			return err
		}
		for _, s := range live {
			sessions.add(s.Pool, string(s.State), 1)
		}
		web, err := tx.LiveApps()
		if err != nil {
			return err
		}
		for _, p := range web {
			apps.add(p.Pool, string(p.State), 1)
		}
		return tx.EachActiveJob(func(j shoal.Job) error {
			jobs.add(j.Spec.Pool, string(j.State), 1)
			for state, n := range map[shoal.JobState]int{shoal.JobQueued: j.Counts.Queued, shoal.JobStarting: j.Counts.Starting, shoal.JobRunning: j.Counts.Running,
				shoal.JobSucceeded: j.Counts.Succeeded, shoal.JobFailed: j.Counts.Failed, shoal.JobCancelled: j.Counts.Cancelled, shoal.JobTimedOut: j.Counts.TimedOut} {
				tasks.add(j.Spec.Pool, string(state), n)
			}
			return nil
		})
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(f.machines, err)
		return
	}
	machines.send(ch, f.machines)
	sessions.send(ch, f.sessions)
	apps.send(ch, f.apps)
	jobs.send(ch, f.jobs)
	tasks.send(ch, f.task)
	for _, name := range slices.Sorted(maps.Keys(gpus)) {
		g := gpus[name]
		ch <- prometheus.MustNewConstMetric(f.gpus, prometheus.GaugeValue, float64(g.number), string(name))
		ch <- prometheus.MustNewConstMetric(f.gpuBusy, prometheus.GaugeValue, g.busy, string(name))
		ch <- prometheus.MustNewConstMetric(f.gpuMemory, prometheus.GaugeValue, float64(g.memory), string(name))
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		ch <- prometheus.MustNewConstMetric(f.size, prometheus.GaugeValue, float64(sizes[name]), string(name))
	}
	ch <- prometheus.MustNewConstMetric(f.rev, prometheus.CounterValue, float64(f.store.Rev()))
}
