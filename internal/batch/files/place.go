package files

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Place is where on this host a directory is that machines see elsewhere.
type Place struct {
	Share string // the share's directory
	Path  string // below it; "." for itself
}

// Find says where a directory of a pool's machines is. It is an error, with what to do, if that is not
// on a share, or on one that this host does not have as a directory.
func Find(p shoal.Pool, share func(shoal.ShareName) (shoal.Share, error), dir string) (Place, error) {
	dir = path.Clean(dir)
	var on *shoal.Mount
	for i, m := range p.Mounts {
		at := path.Clean(m.Path)
		if dir != at && !strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/") {
			continue
		}
		if on == nil || len(at) >= len(path.Clean(on.Path)) { // the innermost, and of two the last, is what is seen
			on = &p.Mounts[i]
		}
	}
	if on == nil {
		return Place{}, shoal.Errorf(shoal.KindInvalid, "%s is on no share: it is on the disks of the machines of pool %s, and goes with them", dir, p.Name).
			WithHint("have outputs on a share: %s", mounted(p))
	}
	s, err := share(on.Share)
	if err != nil {
		return Place{}, err
	}
	if !filepath.IsAbs(s.Source) {
		return Place{}, shoal.Errorf(shoal.KindInvalid, "%s is on share %s at %s, which the server does not read", dir, s.Name, s.Source).
			WithHint("read it on a machine: ssh to pool %s, or `shoal run -p %s -- cat FILE`", p.Name, p.Name)
	}
	below := strings.TrimPrefix(strings.TrimPrefix(dir, path.Clean(on.Path)), "/")
	return Place{Share: filepath.Clean(s.Source), Path: path.Join(".", below)}, nil
}

func mounted(p shoal.Pool) string {
	if len(p.Mounts) == 0 {
		return fmt.Sprintf("pool %s mounts none yet", p.Name)
	}
	var all []string
	for _, m := range p.Mounts {
		all = append(all, fmt.Sprintf("%s at %s", m.Share, m.Path))
	}
	return fmt.Sprintf("pool %s mounts %s", p.Name, strings.Join(all, ", "))
}
