package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGPUs: what is said of a host with two device nodes, which are those of harmless devices here.
func TestGPUs(t *testing.T) {
	log := func(gpus ...string) string {
		return "#!/bin/sh\ncat <<'E'\n<nvidia_smi_log>" + strings.Join(gpus, "") + "</nvidia_smi_log>\nE\n"
	}
	one := func(minor string) string {
		return "<gpu><product_name>H100</product_name><uuid>GPU-" + minor + "</uuid><minor_number>" + minor +
			"</minor_number><fb_memory_usage><total>81920 MiB</total></fb_memory_usage></gpu>"
	}
	for name, c := range map[string]struct {
		smi   string // absent: not installed
		nodes string
		state State
		want  string
	}{
		"good":          {log(one("0"), one("1")), "nvidia0 nvidia1 nvidiactl", OK, "/dev/nvidia0 H100 (80GiB), /dev/nvidia1 H100"},
		"one is lost":   {log(one("1")), "nvidia0 nvidia1 nvidiactl", Warning, "does not know 1"},
		"no control":    {log(one("0")), "nvidia0", Warning, "no /dev/nvidiactl"},
		"no tool":       {"absent", "nvidia0 nvidiactl", Warning, "1 device nodes, and no nvidia-smi"},
		"it fails":      {"#!/bin/sh\necho no driver; exit 9\n", "nvidia0 nvidiactl", Warning, "no driver"},
		"it says trash": {"#!/bin/sh\necho '<x'\n", "nvidia0 nvidiactl", Warning, "cannot read"},
	} {
		t.Run(name, func(t *testing.T) {
			h := world(t, map[string]string{"usr/bin/nvidia-smi": c.smi, "dev/null": ""})
			for n := range strings.FieldsSeq(c.nodes) {
				if err := unix.Mknod(filepath.Join(h.Root, "dev", n), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
					t.Skipf("cannot make a device: %v", err)
				}
			}
			f := find(t, h.Look(t.Context()), "gpus")
			if f.State != c.state || !strings.Contains(f.Detail, c.want) || f.State != OK && f.Mend == "" {
				t.Errorf("%+v", f)
			}
		})
	}
	if _, err := os.Stat("/dev/nvidia0"); err == nil {
		t.Logf("this host: %+v", Here(t.TempDir(), "127.0.0.1:0", "127.0.0.1:0").gpus(t.Context()))
	}
}
