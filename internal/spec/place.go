package spec

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/shoal-pool/shoal"
)

// PlaceJob replaces what a job says of shares, as in team:/data, by where its pool mounts them.
func PlaceJob(j *shoal.JobSpec, p shoal.Pool) []shoal.Mistake {
	var c checks
	find := func(at, place string) string {
		m := sharePlace.FindStringSubmatch(place)
		if m == nil {
			return place
		}
		i := slices.IndexFunc(p.Mounts, func(o shoal.Mount) bool { return string(o.Share) == m[1] })
		if i < 0 {
			c.wrong(at, mountsHint(p), "pool %s does not mount share %q", p.Name, m[1])
			return place
		}
		return path.Join(p.Mounts[i].Path, m[2])
	}
	j.Workdir = find("workdir", j.Workdir)
	j.Stdout, j.Stderr = find("stdout", j.Stdout), find("stderr", j.Stderr)
	j.Inputs, j.Outputs, j.Env = maps.Clone(j.Inputs), maps.Clone(j.Outputs), maps.Clone(j.Env) // the caller's stay as they are
	if j.Dialect == "batchai" {
		// The variables for the roots of its mounts.
		for _, name := range []string{"AZ_BATCHAI_JOB_MOUNT_ROOT", "AZ_BATCHAI_MOUNT_ROOT"} {
			if at, ok := j.Env[name]; ok {
				j.Env[name] = find(join("env", name), at)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.Inputs)) {
		j.Inputs[name] = find(join("inputs", name), j.Inputs[name])
	}
	for _, name := range slices.Sorted(maps.Keys(j.Outputs)) {
		dir := j.Outputs[name]
		dir.Path = find(join("outputs", name), dir.Path)
		j.Outputs[name] = dir
	}
	return c.mistakes
}

func mountsHint(p shoal.Pool) string {
	if len(p.Mounts) == 0 {
		return "it mounts none"
	}
	s := "it mounts"
	for i, m := range p.Mounts {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(" %s at %s", m.Share, m.Path)
	}
	return s
}
