package local

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
)

// asUser runs a script as one of the pool's users rather than as root.
func asUser(script string) string {
	return "exec setpriv --reuid 20001 --regid 20001 --clear-groups sh -c " + quote(script)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// What is refused to root in a machine, and so to everybody in it.
func TestConfinement(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	create(t, p, spec("m-1", "lab"))
	for what, script := range map[string]string{
		"mount a tmpfs":              "mount -t tmpfs x /mnt",
		"bind":                       "mount --bind /tmp /mnt",
		"make /proc/sys writable":    "mount -o remount,rw /proc/sys",
		"unmount a mask":             "umount /proc/kcore",
		"a user namespace":           "unshare -U true",
		"a mount namespace":          "unshare -m true",
		"a network namespace":        "unshare -n true",
		"a PID namespace":            "unshare -pf true",
		"a cgroup namespace":         "unshare -C true",
		"a time namespace":           "unshare -T true",
		"clone a user namespace":     perl(`exit(syscall(56, 0x10000000|17, 0, 0, 0, 0) < 0)`),
		"clone a mount namespace":    perl(`exit(syscall(56, 0x00020000|17, 0, 0, 0, 0) < 0)`),
		"join a namespace":           "nsenter -t 1 -n true",
		"make a device":              "mknod /tmp/disk b 254 0",
		"make a memory device":       "mknod /tmp/mem c 1 1",
		"a network interface":        "ip link add dummy0 type dummy",
		"another address":            "ip addr add 100.64.1.1/20 dev eth0",
		"another hardware address":   "ip link set eth0 address 02:00:00:00:00:01",
		"a raw socket":               perl(`use Socket; socket(my $s, PF_INET, SOCK_RAW, 1) or die $!`),
		"a packet socket":            perl(`socket(my $s, 17, 3, 768) or die $!`),
		"a filter of its own":        "nft add table inet x",
		"another host name":          "hostname x",
		"the kernel's log":           "dmesg",
		"kernel settings":            "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
		"the magic key":              "echo b > /proc/sysrq-trigger",
		"write in /sys":              "echo mem > /sys/power/state",
		"the clock":                  "date -s 2000-01-01",
		"a kernel module":            "modprobe dummy || insmod /tmp/x.ko",
		"io_uring":                   perl(`exit(syscall(425, 1, 0) < 0)`),
		"bpf":                        perl(`exit(syscall(321, 5, 0, 0) < 0)`),
		"userfaultfd":                perl(`exit(syscall(323, 0) < 0)`),
		"keyrings":                   perl(`exit(syscall(250, 0, 0) < 0)`),
		"the kernel's memory":        "head -c 1 /proc/kcore | grep -q .",
		"write Shoal's programs":     "echo x > /opt/shoal/bin/shoal-agent",
		"a socket to the hypervisor": perl(`socket(my $s, 40, 1, 0) or die $!`),
		"take the control's place":   "rm -f /run/shoal/control/x; touch /run/shoal/control/x",
		"fill /run with one file":    "head -c 9m /dev/zero > /run/lock/x || { rm /run/lock/x; false; }",
		"fill /run with files":       perl(`for (1..5000) { open(F, ">", "/run/lock/$_") or last; $n++ } unlink glob("/run/lock/*"); exit($n < 5000)`),
		"device rules":               "echo a > /sys/fs/cgroup/devices/devices.allow",
		"lower its oom score":        "echo -1000 > /proc/self/oom_score_adj",
		"real-time priority":         "chrt -f 1 true",
		"trace processes outside":    "test -d /proc/" + strconv.Itoa(os.Getpid()) + "/root/work",
	} {
		if out, err := in(t, p, "m-1", script); err == nil {
			t.Errorf("%s is not refused: %s", what, out)
		}
	}
	for what, script := range map[string]string{
		"join data":         "cat /run/shoal/join.json",
		"the control":       "ls /run/shoal/control",
		"shadow":            "cat /etc/shadow",
		"root's home":       "ls /root",
		"a user namespace":  "unshare -Ur true",
		"a setuid program":  "test $(/tmp/id -u) = 0",
		"limits of its own": "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x /sys/fs/cgroup/unified/x 2>/dev/null && test -d /sys/fs/cgroup/memory/x",
	} {
		must(t, p, "m-1", "cp /usr/bin/id /tmp/id; chown root: /tmp/id; chmod 4755 /tmp/id")
		if out, err := in(t, p, "m-1", asUser(script)); err == nil {
			t.Errorf("a user is not refused %s: %s", what, out)
		}
	}
	// What a machine is for works.
	for what, script := range map[string]string{
		"temporary files":   asUser("touch /tmp/x /var/tmp/x /dev/shm/x /run/lock/x"),
		"a terminal":        "script -qc true /dev/null",
		"who":               "who",
		"names":             "getent hosts localhost && getent hosts m-1",
		"a changed system":  "touch /etc/x /usr/bin/x && chown 20001 /etc/x && setpriv --reuid 20001 true",
		"packages":          "dpkg -s libc6 | grep -q installed && dpkg --audit",
		"ping":              "cat /proc/sys/net/ipv4/ping_group_range; id; " + perl(`use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 1) or die $!`),
		"a cgroup per user": "mkdir /sys/fs/cgroup/user-1 2>/dev/null || mkdir /sys/fs/cgroup/memory/user-1",
		"its process tree":  "test $(cat /proc/1/comm) = sh",
		"no group above":    "! grep -q shoal /proc/self/cgroup",
	} {
		if out, err := in(t, p, "m-1", script); err != nil {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}

func perl(script string) string { return "perl -e " + quote(script) }

// With setuid asked for, sudo and its like can have their effect.
func TestSetuid(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	s := spec("m-1", "lab")
	s.Setuid = true
	create(t, p, s)
	must(t, p, "m-1", "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id")
	if got := must(t, p, "m-1", asUser("/tmp/id -u")); got != "0" {
		t.Errorf("a setuid program runs as %s", got)
	}
	refused(t, p, "m-1", "mount -t tmpfs x /mnt")
}

// A machine's root may write to all control groups it can see, and gets no more than it was given.
func TestLimits(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	s := spec("m-1", "lab")
	s.Resources = shoal.Resources{CPUs: 500, Memory: 64 << 20}
	s.Config = map[string]any{"pids": 80}
	create(t, p, s)
	create(t, p, spec("m-2", "lab"))
	_, _ = in(t, p, "m-1", `cd /sys/fs/cgroup
		for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory.max memory.swap.max; do echo -1 > $f || echo max > $f; done
		for f in pids/pids.max pids.max; do echo max > $f; done
		for f in cpu/cpu.cfs_quota_us; do echo -1 > $f; done; echo max > cpu.max
		echo 1 > memory/memory.oom_control`)
	if out, err := in(t, p, "m-1", "head -c 100m /dev/zero | tail | wc -c"); err == nil && out == fmt.Sprint(100<<20) {
		t.Error("100 MiB fit into 64 MiB")
	}
	out, _ := in(t, p, "m-1", "i=0; while [ $i -lt 200 ]; do sleep 20 >/dev/null 2>&1 & i=$((i+1)); done 2>/dev/null; ls -d /proc/[0-9]* | wc -l")
	if n, err := strconv.Atoi(lastOf(out)); err == nil && n > 85 {
		t.Errorf("%d processes fit into 80", n)
	}
	p2, _ := in(t, p, "m-1", "kill -9 -1; true")
	_ = p2
	// The processor: two busy loops in half a processor, over some wall-clock time.
	before, start := usage(t, p, "m-1"), time.Now()
	_, _ = in(t, p, "m-1", "timeout 1.5 sh -c 'while :; do :; done' & timeout 1.5 sh -c 'while :; do :; done'; wait")
	if share := float64(usage(t, p, "m-1")-before) / float64(time.Since(start)); share > 0.75 {
		t.Errorf("the machine had %.2f processors, and was given 0.5", share)
	}
	// The neighbour has noticed nothing, and the machine still answers.
	must(t, p, "m-2", "head -c 20m /dev/zero | tail -c 1 | wc -c")
	must(t, p, "m-1", "true")
	wait(t, p, "m-1", "running")
}

func lastOf(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// usage is the processor time of a machine so far.
func usage(t *testing.T, p *Provider, id string) time.Duration {
	t.Helper()
	group := filepath.Join("shoal-"+p.tag, id)
	for _, dir := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct"} {
		// Version 1 counts where the processes are: runc makes the groups, with the box in it.
		if b, err := os.ReadFile(filepath.Join(dir, group, "cpuacct.usage")); err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return time.Duration(n)
		}
	}
	for line := range strings.Lines(read(t, filepath.Join("/sys/fs/cgroup", group, "cpu.stat"))) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return time.Duration(n) * time.Microsecond
		}
	}
	t.Fatal("no control group counts processor time")
	return 0
}

// A machine that has frozen its own processes can be stopped and deleted all the same.
func TestFrozen(t *testing.T) {
	needHost(t)
	cfg := place(t)
	cfg.StopGrace = 100 * time.Millisecond
	p := open(t, cfg)
	create(t, p, spec("m-1", "lab"))
	_, _ = in(t, p, "m-1", `cd /sys/fs/cgroup; [ -d freezer ] && cd freezer; [ -d unified ] && cd unified; mkdir ice || exit
		sleep 1000 >/dev/null 2>&1 & echo $! > ice/cgroup.procs; sleep 0.3 # else it is frozen before it let go of our output
		echo FROZEN > ice/freezer.state || echo 1 > ice/cgroup.freeze`)
	if err := p.Stop(t.Context(), "m-1"); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-1", "stopped")
	if err := p.Delete(t.Context(), "m-1"); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-1", "")
}

// Secrets in places of the host that are not listed are not in a machine, whatever their mode; nor is what
// not everybody may read in places that are.
func TestSecretsOfTheHost(t *testing.T) {
	needHost(t)
	const mark = "shoal-planted-7f3k"
	t.Setenv("SHOAL_TEST_SECRET", mark)
	p := open(t, place(t))
	create(t, p, spec("m-0", "lab"))
	plant := func(path string, mode os.FileMode) {
		path = strings.ReplaceAll(path, "MARK", mark)
		dir := filepath.Dir(path)
		for d := dir; d != "/"; d = filepath.Dir(d) { // what is made for it goes with it
			if _, err := os.Stat(d); err != nil {
				t.Cleanup(func() { os.Remove(d) })
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
		if err := os.WriteFile(path, []byte("password: "+mark), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	open := []string{"/MARK", "/MARK.d/x", "/root/MARK", "/root/.ssh/MARK", "/home/MARK", "/home/someone/.aws/MARK", "/srv/MARK", "/mnt/MARK", "/media/MARK",
		"/opt/MARK/x", "/boot/MARK", "/run/MARK", "/dev/shm/MARK", "/tmp/MARK", "/var/tmp/MARK", "/var/MARK", "/var/lib/MARK/x", "/var/log/MARK",
		"/var/spool/cron/MARK", "/var/mail/MARK", "/var/backups/MARK", "/var/cache/MARK", "/var/lib/apt/lists/MARK", "/etc/MARK", "/etc/MARK.d/x", "/etc/default/MARK",
		"/etc/ssh/MARK", "/etc/ssh/sshd_config.d/MARK", "/etc/sudoers.d/MARK", "/etc/pam.d/MARK", "/etc/cron.d/MARK", "/etc/NetworkManager/MARK", "/etc/letsencrypt/MARK"}
	for _, path := range open {
		plant(path, 0o644)
	}
	closed := []string{"/usr/local/etc/MARK", "/usr/share/MARK", "/usr/local/lib/MARK.d/x", "/etc/ssl/MARK", "/etc/profile.d/MARK", "/var/lib/dpkg/MARK", "/etc/security/MARK", "/etc/apt/auth.conf.d/MARK"}
	for _, path := range closed {
		plant(path, 0o600)
	}
	if err := os.Chmod("/usr/local/lib/"+mark+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d open and %d closed secrets are planted", len(open), len(closed))

	// As after an upgrade of the host, so that the image is made with all of them in place.
	p.images.Forget()
	t.Cleanup(p.images.Forget)
	create(t, p, spec("m-1", "lab"))
	for _, id := range []shoal.MachineID{"m-0", "m-1"} {
		names := must(t, p, id, "find / -path /proc -prune -o -path /sys -prune -o -name '*"+mark+"*' -print")
		var found []string
		for name := range strings.FieldsSeq(names) {
			// A closed file that appears under a live /usr after the machine started has its mode, and the machine's
			// root is not the users; the next image hides it.
			if id == "m-0" && strings.HasPrefix(name, "/usr/") || id == "m-0" && strings.HasPrefix(name, "/var/lib/dpkg/") {
				continue
			}
			found = append(found, name)
		}
		if len(found) > 0 {
			t.Errorf("%s sees %v", id, found)
		}
		texts := must(t, p, id, "{ cat /proc/*/environ; grep -rlsI --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr --exclude-dir=dpkg "+mark+" / ; } | tr '\\0' '\\n' | grep -a "+mark+"; true")
		if texts != "" {
			t.Errorf("%s reads %s", id, texts)
		}
	}
	// Nothing that is closed on the host is there but what was made for the machine.
	made := []string{"/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/.pwd.lock", "/var/log/btmp", "/run/shoal/join.json", "/var/lib/dpkg/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/triggers/Lock"}
	out := must(t, p, "m-1", "find / -path /proc -prune -o -path /sys -prune -o -type f ! -perm -004 -print")
	for name := range strings.FieldsSeq(out) {
		if !slices.Contains(made, name) {
			t.Errorf("%s is not for everybody, and is in the machine", name)
		}
	}
	if out := must(t, p, "m-1", "find /home /root /srv /mnt /media /opt /boot -mindepth 1 ! -path '/opt/shoal*'"); out != "" {
		t.Errorf("in the machine there is %s", out)
	}
}
