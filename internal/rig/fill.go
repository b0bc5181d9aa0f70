package rig

import (
	"context"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// Fill stores arrays whose tasks have all ended well, as many as that takes for so many tasks, as they are some time
// after their ends. No server could run ten million of them for a test.
func Fill(ctx context.Context, db *store.DB, pool shoal.PoolName, tasks int, user func(int) shoal.UserName) error {
	const size = 1 << pack.ChunkBits
	now := time.Now().UTC()
	for n := 0; n*size < tasks; n++ {
		err := db.Update(ctx, func(tx *store.Tx) error {
			id, err := tx.NextJobID()
			if err != nil {
				return err
			}
			j := shoal.Job{ID: id, User: user(n), State: shoal.JobSucceeded, Ended: now, Counts: shoal.Counts{Succeeded: size}, Next: size,
				Spec: shoal.JobSpec{Pool: pool, Command: "true", Array: "0-" + strconv.Itoa(size-1)}}
			all := make([]shoal.Attempt, size)
			for i := range all {
				a := &all[i]
				*a = shoal.Attempt{User: j.User, Pool: pool, Machine: "m-1", Epoch: 1, State: shoal.JobSucceeded, Cause: shoal.CauseExit, Placed: now,
					Started: now.Add(time.Millisecond), Ended: now.Add(time.Second), StdoutBytes: 100, MaxMemory: 3 << 20, CPUTime: 5e6}
				a.Job, a.Index, a.Attempt = id, i, 1
			}
			if err := tx.PutPacked(all); err != nil {
				return err
			}
			_, err = tx.Jobs().Insert(j)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
