package batch

import (
	"context"
	"maps"
	"path"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/files"
	"github.com/shoal-pool/shoal/internal/launch"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Files says where the outputs of a job are, and as which user a subject reads them: as herself, so that
// nobody reads through a job what she could not read in a session. The host reads as the job's user. An
// output that is on no share is an error that says what to do, unless another is.
func (b *Batch) Files(ctx context.Context, by access.Subject, id shoal.JobID) (u files.User, outputs []files.Output, err error) {
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		outputs = nil
		j, err := visible(tx, by, access.Output, id)
		if err != nil {
			return err
		}
		name := by.User
		if by.Host {
			name = j.User
		}
		if u, err = reader(tx, name); err != nil || len(j.Spec.Outputs) == 0 {
			return err
		}
		p, err := tx.Pools().Get(j.Spec.Pool)
		if err != nil {
			return err
		}
		var nowhere error
		for _, name := range slices.Sorted(maps.Keys(j.Spec.Outputs)) {
			dir := launch.OutputDir(j, name)
			if !path.IsAbs(dir) {
				dir = path.Join(p.HomeOf(j.User), dir)
			}
			at, err := files.Find(p, tx.Shares().Get, dir)
			switch {
			case err == nil:
				outputs = append(outputs, files.Output{Name: name, Place: at})
			case store.Broken(err):
				return err
			case nowhere == nil:
				nowhere = shoal.Errorf(shoal.KindOf(err), "cannot read output %s: %w", name, err)
			}
		}
		if len(outputs) == 0 {
			return nowhere
		}
		return nil
	})
	return u, outputs, err
}

// reader is a user as the file systems know her.
func reader(tx *store.Tx, name shoal.UserName) (files.User, error) {
	u, err := tx.Users().Get(name)
	if err != nil {
		return files.User{}, err
	}
	r := files.User{Name: name, UID: u.UID, GID: u.UID}
	groups, err := tx.Groups().List()
	if err != nil {
		return r, err
	}
	mine := usage.GroupsOf([]shoal.User{u}, groups)[name]
	for _, g := range groups {
		if g.GID > 0 && slices.Contains(mine, g.Name) {
			r.Groups = append(r.Groups, g.GID)
		}
	}
	return r, nil
}
