package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/store/file"
)

// What the queue is filled with: a million tasks.
const (
	queueUsers  = 50
	queueJobs   = 200_000
	queueArrays = 800
	arraySize   = 1000
	finished    = 10_000_000
)

// queueRows fills the queue with a million tasks, measuring how fast it takes them, what they weigh and how fast a
// server that restarts places the first.
func queueRows(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "queue")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, queueUsers, rig.Pool("batch", "batch", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 1, "")); err != nil {
		return err
	}
	if _, err := w.Ready(ctx, "batch", 1, time.Minute); err != nil {
		return err
	}
	me, err := w.ClientAs(ctx, "u1")
	if err != nil {
		return err
	}
	holder, err := me.Submit(ctx, queued("sleep 100000"), shoal.NewToken()) // the only machine has something to do
	if err != nil {
		return err
	}
	if err := oneByOne(ctx, b, me); err != nil {
		return err
	}
	if err := inBatches(ctx, b, w); err != nil {
		return err
	}
	for i := range queueArrays {
		spec := queued("true")
		spec.Array = fmt.Sprintf("1-%d", arraySize)
		if _, err := w.as(i).Submit(ctx, spec, ""); err != nil {
			return err
		}
	}
	var answer, memory []float64
	for range b.rounds {
		start := time.Now()
		if _, err := w.Client.Jobs(ctx, client.JobQuery{Limit: 50}); err != nil {
			return err
		}
		answer = append(answer, time.Since(start).Seconds()*1000)
		pss, err := settledPSS(w.Server.Process.Pid)
		if err != nil {
			return err
		}
		memory = append(memory, pss/1024)
	}
	b.add(Row{Measure: "1,000,000 queued tasks: memory of the server", Unit: "MiB", Ours: memory,
		Note: "200,000 jobs of 50 users and 800 arrays of 1,000"}.judge(atMost("ours", 1000)))
	b.add(Row{Measure: "1,000,000 queued tasks: listing jobs by the API", Unit: "ms", Ours: answer}.judge(atMost("ours", 1000)))
	if err := restarts(ctx, b, w, holder.ID); err != nil {
		return err
	}
	return w.cancelAll(ctx)
}

// cancelAll ends all jobs in as few requests as it takes.
func (w *world) cancelAll(ctx context.Context) error {
	newest, err := w.Client.Jobs(ctx, client.JobQuery{Limit: 1})
	if err != nil || len(newest) == 0 {
		return err
	}
	last, err := strconv.Atoi(string(newest[0].ID))
	if err != nil {
		return err
	}
	var req api.CancelRequest
	for id := last; id > 0; id-- { // the newest first: the oldest are being started
		req.IDs = append(req.IDs, shoal.JobID(strconv.Itoa(id)))
		if len(req.IDs) == api.MaxBatch || id == 1 {
			if _, err := w.Client.CancelJobs(ctx, req); err != nil {
				return err
			}
			req.IDs = nil
		}
	}
	return nil
}

func queued(command string) shoal.JobSpec {
	return shoal.JobSpec{Pool: "batch", Command: command, Resources: shoal.Resources{CPUs: 1000, Memory: 64 << 20}}
}

// as is a client of root's on the host that acts as one of the users.
func (w *world) as(i int) *client.Client {
	c, err := client.New(client.Options{Socket: w.Data + "/shoal.sock", As: shoal.UserName("u" + strconv.Itoa(1+i%queueUsers))})
	if err != nil {
		panic(err) // the options are right
	}
	return c
}

// oneByOne submits jobs each in a request of its own, from one client that waits for each answer.
func oneByOne(ctx context.Context, b *bench, me *client.Client) error {
	const n = 1000
	var rates []float64
	for range b.rounds {
		start := time.Now()
		for range n {
			if _, err := me.Submit(ctx, queued("true"), shoal.NewToken()); err != nil {
				return err
			}
		}
		rates = append(rates, n/time.Since(start).Seconds())
	}
	b.add(Row{Measure: "submissions by one client, one by one", Unit: "jobs/s", Ours: rates}.judge(atLeast("ours", 300)))
	return nil
}

// inBatches submits the rest of the jobs in requests of as many as one may hold.
func inBatches(ctx context.Context, b *bench, w *world) error {
	var rates []float64
	for i := range queueJobs / api.MaxBatch {
		var req api.BatchRequest
		for k := range api.MaxBatch {
			s := queued("true")
			s.ExternalID = fmt.Sprintf("bench-%d-%d", i, k)
			req.Jobs = append(req.Jobs, s)
		}
		start := time.Now()
		got, err := w.as(i).SubmitBatch(ctx, req, "")
		if err != nil {
			return err
		}
		rates = append(rates, api.MaxBatch/time.Since(start).Seconds())
		for _, item := range got.Items {
			if item.Problem != nil {
				return errors.New(item.Problem.Detail)
			}
		}
	}
	b.add(Row{Measure: "submissions in requests of 10,000", Unit: "jobs/s", Ours: rates}.judge(atLeast("ours", 5000)))
	return nil
}

// fill adds tasks that ended long ago to a server's store while it is stopped.
func fill(ctx context.Context, data string) error {
	db, err := file.Open(ctx, filepath.Join(data, "shoal.db"))
	if err != nil {
		return err
	}
	return errors.Join(rig.Fill(ctx, db, "batch", finished, func(i int) shoal.UserName {
		return shoal.UserName("u" + strconv.Itoa(1+i%queueUsers))
	}), db.Close())
}

// restarts kills the server and measures from the start of the next until it has placed a task: the one that held the
// machine is ended first.
func restarts(ctx context.Context, b *bench, w *world, holder shoal.JobID) error {
	var took []float64
	for i := range 3 {
		if err := w.Kill(); err != nil {
			return err
		}
		if i == 0 {
			if err := fill(ctx, w.Data); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := w.Start(ctx); err != nil {
			return err
		}
		if i == 0 {
			if _, err := w.Client.CancelJob(ctx, holder); err != nil {
				return err
			}
		}
		var first time.Time
		err := rig.Until(ctx, time.Minute, "a task is placed", func() (bool, error) {
			for _, state := range []shoal.JobState{shoal.JobStarting, shoal.JobRunning, shoal.JobSucceeded} {
				jobs, err := w.Client.Jobs(ctx, client.JobQuery{State: state, Limit: 20})
				if err != nil {
					return false, err
				}
				for _, j := range jobs {
					tasks, err := w.Client.Tasks(ctx, j.ID, 0, 5)
					if err != nil {
						return false, err
					}
					for _, a := range tasks {
						if a.Placed.After(start) && (first.IsZero() || a.Placed.Before(first)) {
							first = a.Placed
						}
					}
				}
			}
			return !first.IsZero(), nil
		})
		if err != nil {
			return err
		}
		took = append(took, first.Sub(start).Seconds())
	}
	b.add(Row{Measure: "a killed server's restart with 1,000,000 queued and 10,000,000 finished tasks, to its first placement", Unit: "s", Ours: took}.judge(atMost("ours", 2)))
	return nil
}

// logRows measures from the moment a task writes a line until a follower has it.
func logRows(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "logs")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, 1, rig.Pool("batch", "batch", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 1, "")); err != nil {
		return err
	}
	if _, err := w.Ready(ctx, "batch", 1, time.Minute); err != nil {
		return err
	}
	me, err := w.ClientAs(ctx, "u1")
	if err != nil {
		return err
	}
	const lines = 50
	job, err := me.Submit(ctx, queued(fmt.Sprintf("for i in $(seq %d); do date +%%s%%N; sleep 0.1; done", lines)), "")
	if err != nil {
		return err
	}
	r, err := me.Output(ctx, shoal.TaskRef{Job: job.ID, Index: -1}, client.OutputQuery{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	var late []float64
	text := ""
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		now := time.Now()
		text += string(buf[:n])
		for {
			line, rest, found := strings.Cut(text, "\n")
			if !found {
				break
			}
			text = rest
			wrote, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				return err
			}
			late = append(late, now.Sub(time.Unix(0, wrote)).Seconds()*1000)
		}
		if err != nil {
			break
		}
	}
	if len(late) != lines {
		return fmt.Errorf("%d of %d lines came", len(late), lines)
	}
	b.add(Row{Measure: "logs -f: from a line written to a line shown", Unit: "ms", Ours: late}.judge(atMost("ours", 200)))
	return nil
}
