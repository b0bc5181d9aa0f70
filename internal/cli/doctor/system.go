package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

func (h Host) root(context.Context) []Finding {
	if h.UID != 0 {
		return missing("root", "sudo shoal doctor", "you are user %d; the server needs root, and so do some of the checks", h.UID)
	}
	return ok("root", "you are root")
}

func (h Host) programs(ctx context.Context) []Finding {
	var found []Finding
	for _, p := range []struct {
		name, pkg, why string
	}{{"runc", "runc", "makes the machines"}, {"nft", "nftables", "keeps pools apart"}, {"sshd", "openssh-server", "takes the logins in machines of the image host"}} {
		path, err := h.LookPath(p.name)
		if err != nil {
			f := missing(p.name, "apt-get install -y "+p.pkg, "not installed; it %s", p.why)
			f[0].Package = p.pkg
			found = append(found, f...)
			continue
		}
		found = append(found, ok(p.name, "%s", path)...)
	}
	return found
}

func (h Host) agent(context.Context) []Finding {
	if h.Agent == "" {
		return nil
	}
	info, err := os.Stat(h.path(h.Agent))
	if err != nil || info.Mode()&0o111 == 0 {
		return missing("shoal-agent", "install shoal-agent beside shoal, in "+filepath.Dir(h.Agent), "there is no program at %s; it is put into each machine", h.Agent)
	}
	return ok("shoal-agent", "%s", h.Agent)
}

// The capabilities that mounts and networks take (linux/capability.h).
const (
	capNetAdmin = 12
	capSysAdmin = 21
)

// capabilities finds a root that is none, as in a container.
func (h Host) capabilities(context.Context) []Finding {
	status, err := h.read("proc/self/status")
	if err != nil || h.UID != 0 {
		return nil
	}
	for line := range strings.Lines(status) {
		text, isCaps := strings.CutPrefix(line, "CapEff:")
		if !isCaps {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil || mask&(1<<capNetAdmin) == 0 || mask&(1<<capSysAdmin) == 0 {
			return missing("capabilities", "run the server on a host, or in a container started with --privileged",
				"this root may neither mount nor make networks, as in a container")
		}
	}
	return ok("capabilities", "mounts and networks are allowed")
}

// cgroups looks for the controllers that bound machines, in either version.
func (h Host) cgroups(context.Context) []Finding {
	mounts, err := h.read("proc/self/mountinfo")
	if err != nil {
		return missing("cgroups", "mount -t proc proc /proc", "cannot read /proc: %v", err)
	}
	have := map[string]string{}
	for line := range strings.Lines(mounts) {
		left, right, _ := strings.Cut(line, " - ")
		at, fsys := strings.Fields(left), strings.Fields(right)
		if len(at) < 6 || len(fsys) < 3 {
			continue
		}
		readOnly := slices.Contains(strings.Split(at[5], ","), "ro")
		switch fsys[0] {
		case "cgroup2":
			list, _ := h.read(filepath.Join(at[4], "cgroup.controllers"))
			for _, c := range strings.Fields(list) {
				have[c] = note("v2", readOnly)
			}
		case "cgroup":
			for c := range strings.SplitSeq(fsys[2], ",") {
				have[c] = note("v1", readOnly)
			}
		}
	}
	var lacking, locked, versions []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		switch v := have[c]; {
		case v == "":
			lacking = append(lacking, c)
		case strings.HasSuffix(v, "ro"):
			locked = append(locked, c)
		case !slices.Contains(versions, v):
			versions = append(versions, v)
		}
	}
	switch {
	case len(have) == 0:
		return missing("cgroups", "mount -t cgroup2 none /sys/fs/cgroup", "no control groups are mounted; they bound the machines")
	case slices.Contains(lacking, "memory"):
		return missing("cgroups", "boot with cgroup_enable=memory on the kernel's command line", "no hierarchy offers %s", strings.Join(lacking, ", "))
	case len(lacking) > 0:
		return missing("cgroups", "use a kernel that has them, or mount their hierarchies below /sys/fs/cgroup", "no hierarchy offers %s", strings.Join(lacking, ", "))
	case len(locked) > 0:
		return missing("cgroups", "mount -o remount,rw /sys/fs/cgroup", "the hierarchy of %s is read-only", strings.Join(locked, ", "))
	}
	slices.Sort(versions)
	return ok("cgroups", "cpu, memory and pids, %s", strings.Join(versions, " and "))
}

func note(version string, readOnly bool) string {
	if readOnly {
		return version + "ro"
	}
	return version
}

// overlayMagic is OVERLAYFS_SUPER_MAGIC of linux/magic.h.
const overlayMagic = 0x794c7630

// overlay sees whether machines' root file systems can be put together in the data directory.
func (h Host) overlay(context.Context) []Finding {
	dir := h.ancestor()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Type == overlayMagic {
		return missing("overlayfs", "put the data directory on ext4 or xfs, with --data DIR", "%s is itself on an overlay, which cannot carry another", dir)
	}
	if h.Try != nil && h.UID == 0 {
		if err := h.Try.Overlay(dir); err != nil {
			return missing("overlayfs", "modprobe overlay, and a data directory on ext4 or xfs", "a trial in %s failed: %v", dir, err)
		}
		return ok("overlayfs", "a trial mount in %s worked", dir)
	}
	list, err := h.read("proc/filesystems")
	if err == nil && !strings.Contains(list, "\toverlay\n") {
		return warning("overlayfs", "modprobe overlay", "not loaded; root can tell whether it can be")
	}
	return ok("overlayfs", "the kernel has it")
}

// ancestor is the data directory, or what of its path exists.
func (h Host) ancestor() string {
	dir := h.path(h.Data)
	for dir != "/" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// What a host image's upper layers and some output take; a full disk stops new work.
const (
	leastDisk = 1 << 30
	goodDisk  = 5 << 30
)

func (h Host) disk(context.Context) []Finding {
	dir := h.ancestor()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return missing("disk", "check the disk of "+dir, "cannot look at %s: %v", dir, err)
	}
	free := shoal.Bytes(int64(st.Bavail) * st.Bsize)
	switch {
	case free < leastDisk:
		return missing("disk", "make room, or choose another place with --data DIR", "%s is free in %s; 1GiB is the least", free, dir)
	case st.Files > 0 && st.Ffree < 10000:
		return missing("disk", "remove small files, or choose another place with --data DIR", "%d files can still be made in %s", st.Ffree, dir)
	case free < goodDisk:
		return warning("disk", "make room, or choose another place with --data DIR", "%s is free in %s, which is little", free, dir)
	}
	return ok("disk", "%s is free in %s", free, dir)
}

// clock: a clock that is off makes certificates invalid and bills wrong.
func (h Host) clock(context.Context) []Finding {
	if h.Try == nil {
		return nil
	}
	good, err := h.Try.Clock()
	switch {
	case err != nil:
		return warning("clock", "timedatectl", "cannot tell whether it is right: %v", err)
	case !good:
		return warning("clock", "apt-get install -y systemd-timesyncd && timedatectl set-ntp true",
			"nothing keeps it right; certificates and the bill depend on it")
	}
	return ok("clock", "kept right")
}

// accounts finds people of the host whose numbers Shoal would give to its own users: on a share, files
// show numbers only.
func (h Host) accounts(context.Context) []Finding {
	var clash []string
	for _, file := range []struct{ path, what string }{{"etc/passwd", "account"}, {"etc/group", "group"}} {
		text, err := h.read(file.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return warning("accounts", "", "cannot read /%s: %v", file.path, err)
		}
		scan := bufio.NewScanner(strings.NewReader(text))
		for scan.Scan() {
			f := strings.Split(scan.Text(), ":")
			if len(f) < 3 {
				continue
			}
			if id, err := strconv.Atoi(f[2]); err == nil && id >= shoal.FirstID && id <= shoal.LastID {
				clash = append(clash, fmt.Sprintf("%s %s (%d)", file.what, f[0], id))
			}
		}
	}
	if len(clash) > 0 {
		more := ""
		if len(clash) > 5 {
			more = fmt.Sprintf(" and %d more", len(clash)-5)
		}
		return warning("accounts", "give Shoal's users other numbers: `uid:` in their documents, or `shoal user add --uid`",
			"Shoal gives out %d to %d, and this host has %s%s there", shoal.FirstID, shoal.LastID, strings.Join(clash[:min(5, len(clash))], ", "), more)
	}
	return ok("accounts", "none of this host's has a number that Shoal gives out (%d to %d)", shoal.FirstID, shoal.LastID)
}
