package tasks

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/removal"
)

// scratchTime bounds the removal of a scratch directory, in which other processes of the user may go on writing.
const scratchTime = time.Minute

// RemoveScratch removes a directory that a user could fill.
func RemoveScratch(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), scratchTime)
	defer cancel()
	return removal.Tree(ctx, dir)
}

// RemoveGroup removes a group, ending what is in it.
func RemoveGroup(g cgroups.Group) error {
	err := g.Remove()
	if err == nil {
		return nil
	}
	if killed := g.Kill(); killed != nil {
		return killed
	}
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if err = g.Remove(); err == nil {
			return nil
		}
		time.Sleep(wait)
	}
	return err
}
