package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/shares"
)

// hasKernel reports whether the kernel has a client for a file system, or can load one.
func hasKernel(ctx context.Context, fs string) bool {
	known := func() bool {
		b, _ := os.ReadFile("/proc/filesystems")
		return slices.Contains(strings.Fields(string(b)), fs)
	}
	if known() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return bounded(ctx, exec.Command("modprobe", "-q", fs), nil) == nil && known()
}

// client is whoever mounts a unit.
type client string

const (
	kernelNFS client = "nfs"
	kernelSMB client = "cifs"
	rclone    client = "rclone"
	sshfs     client = "sshfs"
)

// choose finds the client for a kind of share.
func (s *Set) choose(ctx context.Context, src shares.Source) (client, error) {
	need := func(c client) (client, error) {
		if _, err := exec.LookPath(string(c)); err != nil {
			return "", shoal.Errorf(shoal.KindUnavailable, "%s is not installed on this host", c).WithHint("apt-get install %s fuse3", c)
		}
		return c, nil
	}
	switch src.Kind {
	case shares.NFS:
		if s.cfg.Kernel(ctx, "nfs") {
			return kernelNFS, nil
		}
		return "", shoal.Errorf(shoal.KindUnavailable, "this host's kernel has no client for NFS, and there is none outside the kernel").
			WithHint("use a kernel with nfs (Debian's linux-image-cloud-amd64 has it), or reach the same directory by sftp:// or smb://")
	case shares.SFTP:
		return need(sshfs)
	}
	if s.cfg.Kernel(ctx, "cifs") {
		return kernelSMB, nil
	}
	return need(rclone)
}

// address finds the number of a server for the kernel, which knows no names.
func address(ctx context.Context, host string) (string, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("its server's name cannot be resolved: %w", err)
	}
	return all[0].Unmap().String(), nil
}

// common are options that are not the client's but the mount's.
var common = map[string]uint64{"ro": unix.MOUNT_ATTR_RDONLY, "noatime": unix.MOUNT_ATTR_NOATIME, "noexec": unix.MOUNT_ATTR_NOEXEC}

// attributes are those of the mount itself. Nothing on a share makes root or a device.
func attributes(options map[string]string) uint64 {
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	for name := range options {
		attr |= common[name]
	}
	return attr
}

// withDefaults returns the options with what they do not say, without those of the mount itself. A flag that is there keeps away the
// default that is its contrary.
func withDefaults(options map[string]string, defaults [][2]string, contrary map[string]string) [][2]string {
	var all [][2]string
	for _, d := range defaults {
		_, there := options[d[0]]
		_, against := options[contrary[d[0]]]
		if !there && !against {
			all = append(all, d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if _, ok := common[name]; !ok && name != "host" {
			all = append(all, [2]string{name, options[name]})
		}
	}
	return all
}

// bracketed is an address as part of host:path.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// mountNFS mounts by the kernel, with the newest version that both know unless one is asked for.
func (s *Set) mountNFS(ctx context.Context, u *unit, dir string) error {
	addr, err := address(ctx, u.src.Host)
	if err != nil {
		return err
	}
	versions := []string{"4.2", "4.1", "4.0"}
	if v := u.share.Options["vers"]; v == "4" {
	} else if v != "" {
		versions = []string{v}
	}
	for _, v := range versions {
		params := [][2]string{{"source", bracketed(u.src.Host) + ":" + u.src.Path}, {"addr", addr}, {"vers", v}}
		defaults := [][2]string{{"port", strconv.Itoa(u.src.Port)}, {"proto", "tcp"}, {"sec", "sys"}}
		if strings.Contains(addr, ":") {
			defaults[1][1] = "tcp6"
		}
		if v == "3" {
			params = append(params, [2]string{"mountaddr", addr}, [2]string{"mountproto", defaults[1][1]})
			defaults = append(defaults, [2]string{"nolock", ""})
		}
		options := maps.Clone(u.share.Options)
		delete(options, "vers")
		params = append(params, withDefaults(options, defaults, nil)...)
		err = s.child(ctx, task{Do: "mount", FS: "nfs", Dir: dir, Params: params, Attr: attributes(u.share.Options)})
		if !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPROTO) {
			break
		}
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("the server does not export it to this host: %w", err)
	}
	return err
}

// mountSMB mounts by the kernel.
func (s *Set) mountSMB(ctx context.Context, u *unit, l login, dir string) error {
	addr, err := address(ctx, u.src.Host)
	if err != nil {
		return err
	}
	source := "//" + path.Join(bracketed(u.src.Host), u.src.Share, u.src.Path, u.sub)
	params := [][2]string{{"source", source}, {"ip", addr}}
	if l.user != "" {
		params = append(params, [2]string{"username", l.user}, [2]string{"password", l.password})
	} else {
		params = append(params, [2]string{"sec", "none"})
	}
	if l.domain != "" && u.share.Options["domain"] == "" {
		params = append(params, [2]string{"domain", l.domain})
	}
	err = s.child(ctx, task{Do: "mount", FS: "cifs", Dir: dir, Params: append(params, smbOptions(u)...), Attr: attributes(u.share.Options)})
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EKEYREJECTED) || errors.Is(err, unix.EKEYEXPIRED) {
		return denied(fmt.Errorf("the server refuses its user or password: %w", err))
	}
	return err
}

// smbOptions are those of the kernel's client: what a home needs that Linux programs work in, and encryption where it leaves the house.
func smbOptions(u *unit) [][2]string {
	defaults := [][2]string{{"port", strconv.Itoa(u.src.Port)}, {"uid", "0"}, {"gid", "0"}, {"file_mode", "0777"}, {"dir_mode", "0777"},
		{"mfsymlinks", ""}, {"nobrl", ""}, {"serverino", ""}}
	if u.src.Kind == shares.Azure {
		defaults = append(defaults, [2]string{"vers", "3.1.1"}, [2]string{"seal", ""})
	}
	options := maps.Clone(u.share.Options)
	if u.home() {
		if options == nil {
			options = map[string]string{}
		}
		options["uid"], options["gid"] = strconv.Itoa(u.uid), strconv.Itoa(u.gid)
		options["file_mode"], options["dir_mode"] = "0700", "0700"
		options["forceuid"], options["forcegid"] = "", ""
		delete(options, "noperm")
	}
	if options["vers"] == "3" {
		options = maps.Clone(options)
		options["vers"] = "3.0"
	}
	return withDefaults(options, defaults, map[string]string{"serverino": "noserverino"})
}

// errDenied marks what a server refuses until its secret is another.
var errDenied = errors.New("denied")

func denied(err error) error { return &deniedError{err} }

type deniedError struct{ error }

func (d *deniedError) Unwrap() []error { return []error{d.error, errDenied} }

// owner says who has all files of a unit, for clients in user space: uid, gid, and what nobody may.
func (u *unit) owner() (uid, gid, umask string) {
	if u.home() {
		return strconv.Itoa(u.uid), strconv.Itoa(u.gid), "077"
	}
	get := func(name, other string) string {
		if v := u.share.Options[name]; v != "" {
			return v
		}
		return other
	}
	return get("uid", "0"), get("gid", "0"), get("umask", "0")
}

// rcloneArgs are those of rclone, whose configuration lies in a file.
func rcloneArgs(u *unit, config, dir, cache string) []string {
	uid, gid, umask := u.owner()
	files, dirs := "0777", "0777"
	if !u.home() {
		if v := u.share.Options["file_mode"]; v != "" {
			files = v
		}
		if v := u.share.Options["dir_mode"]; v != "" {
			dirs = v
		}
	}
	args := []string{"rclone", "mount", "share:" + path.Join(u.src.Share, u.src.Path, u.sub), dir, "--config", config, "--cache-dir", cache,
		"--allow-other", "--default-permissions", "--uid", uid, "--gid", gid, "--umask", umask, "--file-perms", files, "--dir-perms", dirs,
		"--vfs-cache-mode", "writes", "--vfs-write-back", "1s", "--dir-cache-time", "2s", "--attr-timeout", "1s", "--poll-interval", "0",
		"--contimeout", "10s", "--timeout", "30s", "--low-level-retries", "2", "--retries", "1", "--log-level", "ERROR"}
	if _, ok := u.share.Options["ro"]; ok {
		args = append(args, "--read-only")
	}
	return args
}

// rcloneConfig is its configuration. The password is written as rclone wants it, by rclone itself.
func rcloneConfig(ctx context.Context, u *unit, l login) (string, error) {
	user := l.user
	if user == "" {
		user = "guest"
	}
	text := fmt.Sprintf("[share]\ntype = smb\nhost = %s\nport = %d\nuser = %s\n", u.src.Host, u.src.Port, user)
	if d := u.share.Options["domain"]; d != "" {
		text += "domain = " + d + "\n"
	} else if l.domain != "" {
		text += "domain = " + l.domain + "\n"
	}
	if l.password == "" {
		return text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "rclone", "obscure", "-")
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(l.password)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("rclone does not take the password: %w", err)
	}
	return text + "pass = " + string(bytes.TrimSpace(out)) + "\n", nil
}

// sshfsArgs are those of sshfs. hosts is the file of known servers.
func sshfsArgs(u *unit, l login, key, hosts, dir string) []string {
	uid, gid, umask := u.owner()
	o := []string{"allow_other", "default_permissions", "nosuid", "nodev", "reconnect", "uid=" + uid, "gid=" + gid, "umask=" + umask, "fsname=" + string(u.share.Name),
		"ServerAliveInterval=5", "ServerAliveCountMax=3", "ConnectTimeout=10", "StrictHostKeyChecking=accept-new", "UserKnownHostsFile=" + hosts,
		"GlobalKnownHostsFile=/dev/null", "dcache_timeout=2", "NumberOfPasswordPrompts=1"}
	if u.share.Options["hostkey"] != "" {
		o[slices.Index(o, "StrictHostKeyChecking=accept-new")] = "StrictHostKeyChecking=yes"
	}
	if key != "" {
		o = append(o, "IdentityFile="+key, "IdentitiesOnly=yes", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no", "BatchMode=yes")
	} else {
		o = append(o, "password_stdin", "PubkeyAuthentication=no")
	}
	for _, name := range slices.Sorted(maps.Keys(u.share.Options)) {
		switch v := u.share.Options[name]; name {
		case "ro", "noexec", "noatime":
			o = append(o, name)
		case "compression", "max_conns":
			o = append(o, name+"="+v)
		case "cache":
			o = append(o, "dir_cache="+v)
		}
	}
	args := []string{"sshfs", l.user + "@" + bracketed(u.src.Host) + ":" + path.Join(u.src.Path, u.sub), dir, "-f", "-F", "/dev/null", "-p", strconv.Itoa(u.src.Port)}
	for _, v := range o {
		args = append(args, "-o", v)
	}
	return args
}

// hostsFile is where the key of a unit's server is known: in a file of its own if the share says it, else in one that learns.
func (s *Set) hostsFile(u *unit) (string, error) {
	key := strings.Fields(u.share.Options["hostkey"])
	if len(key) < 2 {
		return s.cfg.Dir + ".known_hosts", nil
	}
	name := u.src.Host
	if u.src.Port != 22 {
		name = "[" + name + "]:" + strconv.Itoa(u.src.Port)
	}
	file := filepath.Join(s.cfg.Dir, u.key, "known_hosts")
	return file, os.WriteFile(file, []byte(name+" "+key[0]+" "+key[1]+"\n"), 0o600)
}
