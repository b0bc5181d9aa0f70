package lookup

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// Rows are jobs that have not ended, as they are stored: those that were written last. Many begin and end within
// seconds. It is for the only one who writes jobs.
type Rows map[shoal.JobID]shoal.Job

// Bounds on what is kept.
const (
	maxRows    = 1024
	maxCommand = 4 << 10 // bytes
)

// Get returns a job as a transaction sees it, or KindNotFound.
func (r Rows) Get(tx *store.Tx, id shoal.JobID) (shoal.Job, error) {
	if j, ok := r[id]; ok {
		return j, nil
	}
	return tx.Jobs().Get(id)
}

// Keep takes a row that is stored now. One that is large, or of no more use, is not kept.
func (r Rows) Keep(j shoal.Job) {
	delete(r, j.ID)
	if j.State.Ended() || len(j.Spec.Tasks) > 0 || len(j.Spec.Command) > maxCommand {
		return
	}
	for id := range r {
		if len(r) < maxRows {
			break
		}
		delete(r, id)
	}
	r[j.ID] = j
}
