package submit

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// FromHere fills in what follows from where a command is given: inside a machine, the machine's pool and
// the current directory. Home is the caller's.
func FromHere(ctx context.Context, c *client.Client, inside bool, home string, job *shoal.JobSpec) error {
	if job.Pool != "" && !inside {
		return nil
	}
	me, err := c.Whoami(ctx)
	if err != nil {
		return err
	}
	if job.Pool == "" {
		job.Pool = me.Pool
	}
	if job.Pool == "" {
		if job.Pool, err = onlyPool(ctx, c); err != nil {
			return err
		}
	}
	if me.Machine == "" || job.Workdir != "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil //nolint:nilerr // a directory that is gone is none to run in
	}
	here, err := c.Pool(ctx, me.Pool)
	if err != nil {
		return err
	}
	there := here
	if job.Pool != me.Pool {
		if there, err = c.Pool(ctx, job.Pool); err != nil {
			return err
		}
	}
	job.Workdir = Workdir(dir, home, here, there)
	return nil
}

// Workdir is the directory a job starts in: the current one if it lies on a share that the job's machine
// has at the same place, be it as a mount or for homes. Empty: the home.
func Workdir(dir, home string, here, there shoal.Pool) string {
	under := func(base string) bool {
		return strings.HasPrefix(base, "/") && (dir == base || strings.HasPrefix(dir, strings.TrimSuffix(base, "/")+"/"))
	}
	for _, m := range there.Mounts {
		if under(m.Path) && slices.ContainsFunc(here.Mounts, func(o shoal.Mount) bool { return o.Share == m.Share && o.Path == m.Path }) {
			return dir
		}
	}
	if home != "/" && under(home) && here.Home.Share != "" && here.Home.Layout == "" && here.Home == there.Home {
		return dir
	}
	return ""
}

// onlyPool is the pool to run on where none was named: the only one for jobs, or the default.
func onlyPool(ctx context.Context, c *client.Client) (shoal.PoolName, error) {
	pools, err := c.Pools(ctx)
	if err != nil {
		return "", err
	}
	var batch []string
	for _, o := range pools {
		switch {
		case !o.Has(shoal.UseBatch):
		case o.Default:
			return o.Name, nil
		default:
			batch = append(batch, string(o.Name))
		}
	}
	if len(batch) == 1 {
		return shoal.PoolName(batch[0]), nil
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot tell which pool to run on").WithHint("%s", poolHint(batch))
}

func poolHint(batch []string) string {
	if len(batch) == 0 {
		return "there is no pool for jobs; `shoal pool list` shows what there is"
	}
	return "choose one with -p: " + strings.Join(batch, ", ")
}
