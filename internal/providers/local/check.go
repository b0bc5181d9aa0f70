package local

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
	"github.com/shoal-pool/shoal/internal/spec/shares"
	"github.com/shoal-pool/shoal/provider"
)

// Check implements provider.Checker: all that is wrong is said at once.
func (p *Provider) Check(ctx context.Context, pool shoal.Pool, list []shoal.Share) error {
	var errs []error
	conf, err := parseSettings(pool.ProviderConfig)
	if err != nil {
		errs = append(errs, err)
	}
	if err := p.checkImage(pool.Image, pool.Has(shoal.UseInteractive)); err != nil {
		errs = append(errs, err)
	}
	if err := p.checkSize(pool.Machine); err != nil {
		errs = append(errs, err)
	}
	if need, limit := pool.Machine.Memory*shoal.Bytes(pool.Size.Min), conf.memoryOf(p.host); need > limit {
		errs = append(errs, shoal.Errorf(shoal.KindInvalid,
			"the pool's %d machines of size.min need %s of memory, and the host gives %s (its %s × memoryOvercommit %g)",
			pool.Size.Min, need, limit, p.host.memory, conf.overcommit()).
			WithHint("lower size.min or machine.memory, or raise providerConfig.memoryOvercommit"))
	}
	if need, have := pool.Machine.GPUs*pool.Size.Min, len(p.gpus.GPUs); pool.Machine.GPUs <= have && need > have {
		errs = append(errs, shoal.Errorf(shoal.KindInvalid, "the pool's %d machines of size.min need %d GPUs, and the host has %d", pool.Size.Min, need, have).
			WithHint("lower size.min or machine.gpus"))
	}
	byName := map[shoal.ShareName]shoal.Share{}
	for _, s := range list {
		byName[s.Name] = s
	}
	for _, m := range pool.Mounts {
		share, ok := byName[m.Share]
		if !ok {
			errs = append(errs, shoal.Errorf(shoal.KindInvalid, "there is no share %q to mount at %s", m.Share, m.Path))
			continue
		}
		if err := checkPlace(m.Path); err != nil {
			errs = append(errs, err)
		}
		if _, err := p.shares.Reach(ctx, share); err != nil {
			errs = append(errs, err)
		}
	}
	// What was mounted only to see whether it can be goes again.
	if err := p.shares.DropUnused(ctx); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil
	}
	return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work on this host: %w", pool.Name, errors.Join(errs...)).
		WithHint("%s", hints(errs))
}

func hints(errs []error) string {
	var out []string
	for _, err := range errs {
		if h := shoal.HintOf(err); h != "" {
			out = append(out, h)
		}
	}
	return strings.Join(out, "; ")
}

// checkSpec checks what a Create is given, without waiting for anything.
func (p *Provider) checkSpec(spec provider.MachineSpec) (settings, error) {
	conf, err := parseSettings(spec.Config)
	errs := []error{err, p.checkImage(spec.Image, false), p.checkSize(spec.Resources)}
	for _, m := range spec.Mounts {
		errs = append(errs, shares.Usable(m.Share), checkPlace(m.Path))
	}
	return conf, errors.Join(errs...)
}

// checkImage says whether an image is there, and can take logins if it must.
func (p *Provider) checkImage(image string, logins bool) error {
	kind, err := p.images.Classify(image)
	if err != nil {
		return shoal.Errorf(shoal.KindInvalid, "cannot use image %q: %w", image, err).
			WithHint("write host, a snapshot's name, or the path of a directory or archive; `shoal image list` shows snapshots")
	}
	root := image
	switch {
	case !logins || kind == rootfs.KindArchive || kind == rootfs.KindSnapshot:
		return nil
	case kind == rootfs.KindHost:
		root = "/"
	}
	if _, err := os.Stat(path.Join(root, "usr/sbin/sshd")); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "image %q takes no logins: it has no /usr/sbin/sshd", image).
			WithHint("install openssh-server there")
	}
	return nil
}

// checkSize refuses a machine that is larger than the host, or too small for an agent.
func (p *Provider) checkSize(r shoal.Resources) error {
	switch {
	case p.checkGPUs(r.GPUs) != nil:
		return p.checkGPUs(r.GPUs)
	case r.CPUs < 0 || r.CPUs > p.host.cpus:
		return shoal.Errorf(shoal.KindInvalid, "a machine cannot have %g processors: the host has %g", float64(r.CPUs)/1000, float64(p.host.cpus)/1000).
			WithHint("lower machine.cpus")
	case r.Memory < 0 || r.Memory > p.host.memory:
		return shoal.Errorf(shoal.KindInvalid, "a machine cannot have %s of memory: the host has %s", r.Memory, p.host.memory).
			WithHint("lower machine.memory")
	case r.Memory > 0 && r.Memory < leastMemory:
		return shoal.Errorf(shoal.KindInvalid, "a machine cannot work with %s of memory", r.Memory).
			WithHint("give machine.memory %s at least", shoal.Bytes(leastMemory))
	}
	return nil
}

// leastMemory is what an agent, sshd and one shell need.
const leastMemory = 32 << 20

// checkPlace refuses places in a machine that are its own.
func checkPlace(at string) error {
	clean := path.Clean(at)
	bad := func(why string) error {
		return shoal.Errorf(shoal.KindInvalid, "cannot mount a share at %q: %s", at, why).WithHint("choose a place such as /shared")
	}
	if !path.IsAbs(at) || strings.ContainsRune(at, 0) {
		return bad("it is not an absolute path")
	}
	if strings.HasPrefix(clean, "/usr/local/") && clean != "/usr/local/bin" {
		return nil
	}
	for _, own := range []string{"/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
		"/boot", "/root", "/opt/shoal", "/var/lib/shoal-agent", "/var/lib/dpkg"} {
		if clean == own || strings.HasPrefix(clean, own+"/") || strings.HasPrefix(own, clean+"/") {
			return bad("the machine needs what is there")
		}
	}
	if clean == "/" {
		return bad("the machine needs what is there")
	}
	return nil
}

// CheckUser implements provider.UserChecker. Shared directories show numbers, not names: a user with the
// number of one of the host's accounts would own its files.
func (p *Provider) CheckUser(_ context.Context, user shoal.User) error {
	for _, file := range []struct{ path, what string }{{"/etc/passwd", "account"}, {"/etc/group", "group"}} {
		b, err := os.ReadFile(file.path)
		if err != nil {
			return fmt.Errorf("cannot check user %s: %w", user.Name, err)
		}
		if err := clash(user, b, file.what); err != nil {
			return err
		}
	}
	return nil
}

// clash refuses a user whose name or number is in a passwd or group file.
func clash(user shoal.User, file []byte, what string) error {
	scan := bufio.NewScanner(bytes.NewReader(file))
	for scan.Scan() {
		f := strings.Split(scan.Text(), ":")
		if len(f) < 3 {
			continue
		}
		if f[0] == string(user.Name) {
			return shoal.Errorf(shoal.KindConflict, "user %s cannot be had on this host: it has %s %s of that name already", user.Name, article(what), what).
				WithHint("choose another name, or remove the host's %s", what)
		}
		if id, err := strconv.Atoi(f[2]); err == nil && user.UID != 0 && id == user.UID {
			return shoal.Errorf(shoal.KindConflict, "user %s cannot have uid %d on this host: it is the number of its %s %s", user.Name, user.UID, what, f[0]).
				WithHint("leave uid out, and Shoal chooses a free one")
		}
	}
	return scan.Err()
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an"
	}
	return "a"
}
