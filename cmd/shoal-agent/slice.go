package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
)

// slicesFile holds how users' slices are made here, for the door. It lies in /run: control groups are new at each start.
const slicesFile = agentDir + "/slices.json"

// openSlices finds out whether users can have slices. Without, they share what the machine has.
func openSlices(log *slog.Logger, devices bool) *cgroups.Tree {
	tree, err := cgroups.Open(cgroups.Config{Devices: devices})
	if err != nil {
		log.Warn("users have no slices of their own on this machine", "error", err)
		return nil
	}
	b, err := json.Marshal(tree.Config())
	if err == nil {
		err = os.WriteFile(slicesFile, b, 0o600)
	}
	if err != nil {
		log.Warn("logins have no slices", "error", err)
	}
	return tree
}

// balanced shares the machine's memory out anew whenever it is looked at.
type balanced struct {
	agent.Watcher
	groups *cgroups.Tree
	looked chan struct{} // takes one word, that somebody is there
	log    *slog.Logger
	said   string
}

func (b *balanced) Look() (api.Activity, error) {
	if err := b.groups.Balance(); err != nil && err.Error() != b.said {
		b.said = err.Error()
		b.log.Warn("memory is not shared out", "error", err)
	}
	select {
	case b.looked <- struct{}{}:
	default:
	}
	return b.Watcher.Look()
}

// shareEvery is how often the processors are shared out anew while several users are at work.
const shareEvery = time.Second

// shareOut shares the machine's processors among its users until ctx ends: whenever the machine has been looked at, which it is
// while somebody is there, and more often while there is something to share out.
func shareOut(ctx context.Context, groups *cgroups.Tree, cpus func() shoal.MilliCPU, looked <-chan struct{}, log *slog.Logger) {
	var shares cgroups.Shares
	said := ""
	for soon := false; groups != nil; {
		var again <-chan time.Time
		if soon {
			again = time.After(shareEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-looked:
		}
		var err error
		if soon, err = shares.Divide(groups, cpus(), time.Now()); err != nil && err.Error() != said {
			said = err.Error()
			log.Warn("the processors are not shared out", "error", err)
		}
	}
}

// intoSlice puts a process into the slice of a user, if there are slices.
func intoSlice(uid, pid int) error {
	tree, err := userSlices()
	if err != nil {
		return err
	}
	group, err := tree.User(uid)
	if err != nil {
		return err
	}
	return group.Add(pid)
}

// userSlices are the control groups that the agent has opened; nil: none.
func userSlices() (*cgroups.Tree, error) {
	b, err := os.ReadFile(slicesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var cfg cgroups.Config
	if err == nil {
		err = json.Unmarshal(b, &cfg)
	}
	if err != nil {
		return nil, err
	}
	return cgroups.Open(cfg)
}
