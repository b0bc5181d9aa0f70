// Package homes carries what lies in local homes from machine to machine: it archives a home into a directory of its user's
// on a share, and brings it back on another machine.
//
// Both are done by a process that has no more rights than the user, so nothing that she puts in the way leads anywhere
// that she could not go herself. Each machine writes an archive of its own and replaces it whole. A machine that brings back
// those of others notes which, and removes them once its own holds what they held; so a machine that dies loses what was
// changed since its last archive, and nothing else. Of a file that is in two of them, the newer one counts.
package homes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Bounds of an archive.
const (
	Limit      = int64(2 << 30) // bytes of files
	maxEntries = 200_000
	maxTold    = 5 // names of what was left out
)

// store is where the archives lie, in the user's directory on the share.
const store = ".shoal-home"

const suffix = ".tar.zst"

// Order says what to do to one home. It is JSON since it goes to another process.
type Order struct {
	Home    string           `json:"home"`
	Dir     string           `json:"dir"`     // the user's directory on the share
	Machine string           `json:"machine"` // whose archive is written
	Leave   []string         `json:"leave"`   // what is not the machine's: the links, relative to the home
	Limit   int64            `json:"limit,omitempty"`
	Merged  map[string]int64 `json:"merged,omitempty"` // the others' archives that the home holds, with their times
	Saved   int64            `json:"saved,omitempty"`  // what was changed before, in Unix nanoseconds, is archived
}

// Done is what became of an Order.
type Done struct {
	Nothing bool             `json:"nothing,omitempty"` // there was nothing to do
	Files   int              `json:"files,omitempty"`
	Bytes   int64            `json:"bytes,omitempty"`
	Left    string           `json:"left,omitempty"`   // what is not in the archive, in words
	Merged  map[string]int64 `json:"merged,omitempty"` // as in Order, from now on
	Saved   int64            `json:"saved,omitempty"`
	From    time.Time        `json:"from,omitzero"` // when the newest archive that came back was written
}

// entry is something in a home.
type entry struct {
	name string
	info fs.FileInfo
	size int64
}

// walk lists a home, without what is not to be archived. ctime is when something in it was changed last.
func (o Order) walk(root *os.Root) (all []entry, ctime int64, err error) {
	var top unix.Stat_t
	if err := unix.Stat(o.Home, &top); err != nil {
		return nil, 0, err
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if name == "." {
				return err
			}
			return nil // she took her own rights away, or it has just gone
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if st.Dev != top.Dev {
			return skip(d)
		}
		switch {
		case name == ".":
			ctime = max(ctime, st.Ctim.Nano()) // something was removed
			return nil
		case o.left(name), name == ".cache":
			return skip(d)
		case !d.IsDir() && !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
			return nil // sockets, pipes, devices
		}
		ctime = max(ctime, st.Ctim.Nano())
		e := entry{name: name, info: info}
		if info.Mode().IsRegular() {
			e.size = info.Size()
		}
		if all = append(all, e); len(all) > 4*maxEntries {
			return shoal.Errorf(shoal.KindExhausted, "the home holds more than %d files and directories", 4*maxEntries)
		}
		return nil
	})
	return all, ctime, err
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func (o Order) left(name string) bool {
	return slices.ContainsFunc(o.Leave, func(l string) bool { return name == l || strings.HasPrefix(name, l+"/") })
}

// choose takes what there is room for: where that is not all, the largest files stay behind. It says which, by name and in words.
func (o Order) choose(all []entry) (kept []entry, out map[string]bool, left string) {
	limit := o.Limit
	if limit == 0 {
		limit = Limit
	}
	bySize := slices.Clone(all)
	slices.SortStableFunc(bySize, func(a, b entry) int {
		switch {
		case a.size < b.size:
			return -1
		case a.size > b.size:
			return 1
		}
		return 0
	})
	var sum, lost int64
	n := 0
	for n < len(bySize) && n < maxEntries && sum+bySize[n].size <= limit {
		sum += bySize[n].size
		n++
	}
	out = map[string]bool{}
	var told []string
	for i := len(bySize) - 1; i >= n; i-- {
		e := bySize[i]
		out[e.name] = true
		lost += e.size
		if len(told) < maxTold {
			told = append(told, fmt.Sprintf("~/%s (%s)", e.name, shoal.Bytes(e.size)))
		}
	}
	if len(out) == 0 {
		return all, nil, ""
	}
	more := ""
	if len(out) > len(told) {
		more = fmt.Sprintf(" and %d more", len(out)-len(told))
	}
	left = fmt.Sprintf("%s of files are not archived, since no more than %s of a home are: %s%s; keep them on the share",
		shoal.Bytes(lost), shoal.Bytes(limit), strings.Join(told, ", "), more)
	return slices.DeleteFunc(slices.Clone(all), func(e entry) bool { return out[e.name] }), out, left
}

// openStore opens the directory of the archives, and makes it if need be.
func (o Order) openStore(create bool) (*os.Root, error) {
	dir, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if create {
		if err := dir.Mkdir(store, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return dir.OpenRoot(store)
}

// archive is one that is there.
type archive struct {
	name string
	time int64
}

// archives lists those in the store, the oldest first.
func archives(root *os.Root) ([]archive, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(1000)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var all []archive
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) || strings.HasPrefix(name, ".") || path.Base(name) != name {
			continue
		}
		if info, err := root.Lstat(name); err == nil && info.Mode().IsRegular() {
			all = append(all, archive{name, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b archive) int {
		if a.time < b.time {
			return -1
		}
		return 1
	})
	return all, nil
}

// Now is the time by the clock that the kernel stamps files with, which is behind the other by some milliseconds.
func Now() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &t) != nil {
		return 0 // all counts as changed
	}
	return t.Nano()
}

// slack is by how much the times of files may differ from the clock: file servers and kernels have their own.
const slack = 50 * time.Millisecond

// Tick waits until what is changed from now on is seen to be changed later than what was changed before, and returns that time.
func Tick() int64 {
	time.Sleep(3 * slack)
	return Now()
}

// archived reports whether what was changed last at a time is in the archive.
func (o Order) archived(ctime int64) bool { return ctime < o.Saved-int64(slack) }
