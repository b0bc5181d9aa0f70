package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
)

// settings are a pool's providerConfig.
type settings struct {
	// Opt lets machines of the image host see the host's /opt.
	Opt bool `json:"opt"`
	// Etc names entries of the host's /etc that machines of the image host get beyond the usual ones.
	Etc []string `json:"etc"`
	// MemoryOvercommit is how many times the host's memory machines may have together; 1 unless set.
	MemoryOvercommit float64 `json:"memoryOvercommit"`
	// Pids bounds the processes and threads of one machine; 8192 unless set.
	Pids int64 `json:"pids"`
}

// parseSettings reads a providerConfig strictly.
func parseSettings(config map[string]any) (settings, error) {
	var s settings
	b, err := json.Marshal(config)
	if err != nil {
		return s, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, shoal.Errorf(shoal.KindInvalid, "cannot read providerConfig: %s", strings.TrimPrefix(err.Error(), "json: ")).
			WithHint("the local provider knows opt, etc, memoryOvercommit and pids")
	}
	if s.MemoryOvercommit != 0 && (s.MemoryOvercommit < 0.1 || s.MemoryOvercommit > 100) {
		return s, shoal.Errorf(shoal.KindInvalid, "cannot use %g as memoryOvercommit", s.MemoryOvercommit).
			WithHint("it is a factor between 0.1 and 100; 1 promises no more memory than there is")
	}
	if s.Pids < 0 || s.Pids != 0 && s.Pids < 64 {
		return s, shoal.Errorf(shoal.KindInvalid, "cannot use %d as pids", s.Pids).WithHint("a machine needs 64 processes at least")
	}
	if err := s.options().CheckOptions(); err != nil {
		return s, shoal.Errorf(shoal.KindInvalid, "%w", err)
	}
	return s, nil
}

func (s settings) options() rootfs.Options { return rootfs.Options{Opt: s.Opt, Etc: s.Etc} }

func (s settings) overcommit() float64 {
	if s.MemoryOvercommit == 0 {
		return 1
	}
	return s.MemoryOvercommit
}

func (s settings) pids() int64 {
	if s.Pids == 0 {
		return 8192
	}
	return s.Pids
}

// memoryOf is what machines may have together.
func (s settings) memoryOf(c capacity) shoal.Bytes {
	return shoal.Bytes(float64(c.memory) * s.overcommit())
}

// capacity is what this host has.
type capacity struct {
	cpus   shoal.MilliCPU
	memory shoal.Bytes
}

func hostCapacity() (capacity, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return capacity{}, err
	}
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return capacity{}, fmt.Errorf("cannot read /proc/meminfo: %w", err)
	}
	return capacity{shoal.MilliCPU(runtime.NumCPU() * 1000), shoal.Bytes(kib << 10)}, nil
}

// lookTool finds a program, in the places for root's too, which are not in every PATH.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("not found")
}
