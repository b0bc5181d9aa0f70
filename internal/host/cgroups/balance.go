package cgroups

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Balance bounds the memory of each user's logins by what others and tasks have, so that whoever takes all that is left ends her
// own processes and no others: the kernel would choose the largest of all. It is called now and then. What is new since is
// covered by a sixteenth of the machine. An equal part of half the machine is everybody's, whatever others have.
func (t *Tree) Balance() error {
	if t == nil || t.memory == 0 {
		return nil
	}
	var failed error
	for _, h := range t.hierarchies {
		if h.has("memory") {
			failed = errors.Join(failed, t.balance(h))
		}
	}
	return failed
}

// leastMemory is enough for a shell and an editor.
const leastMemory = 32 << 20

func (t *Tree) balance(h hierarchy) error {
	dirs, err := filepath.Glob(filepath.Join(h.dir, "u[0-9]*"))
	if err != nil {
		return err
	}
	sum := int64(0)
	for _, dir := range dirs {
		sum += taken(h, dir)
	}
	var failed error
	for _, dir := range dirs {
		login := filepath.Join(dir, loginName)
		others := sum - taken(h, login)
		limit := t.userMemory() - others
		if others > 0 {
			limit -= t.memory / 16
		}
		sure := max(t.memory/int64(2*len(dirs)), leastMemory)
		limit = min(max(limit, sure, has(h, login)), t.userMemory())
		if now := limitOf(h, login); now-limit < t.memory/64 && limit-now < t.memory/64 {
			continue
		}
		// A group that has just gone needs none, and one that cannot be made as small ends up at what it has.
		if err := h.set(login, memoryLimit(h, limit)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// has is all memory of a group; taken is that which the kernel cannot take back.
func has(h hierarchy, dir string) int64 {
	if h.v2 {
		return number(read(filepath.Join(dir, "memory.current")))
	}
	return number(read(filepath.Join(dir, "memory.usage_in_bytes")))
}

func taken(h hierarchy, dir string) int64 {
	prefix := "total_"
	if h.v2 {
		prefix = ""
	}
	stat := read(filepath.Join(dir, "memory.stat"))
	return max(has(h, dir)-field(stat, prefix+"inactive_file")-field(stat, prefix+"active_file"), 0)
}

// limitOf is the limit of a group; very large if it has none.
func limitOf(h hierarchy, dir string) int64 {
	file := "memory.limit_in_bytes"
	if h.v2 {
		file = "memory.max"
	}
	n, err := strconv.ParseInt(strings.TrimSpace(read(filepath.Join(dir, file))), 10, 64)
	if err != nil {
		return 1 << 62
	}
	return n
}
