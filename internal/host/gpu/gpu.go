// Package gpu finds NVIDIA's GPUs of a host or a machine, and asks how they are used.
//
// That a GPU is there, its device node says: /dev/nvidia0 and so on. What it is and does, `nvidia-smi` says, where it is
// installed and answers: a driver in trouble makes it hang, so it is given a bounded time and is never waited for where
// somebody else waits.
package gpu

import (
	"cmp"
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

// Device is a device node.
type Device struct {
	Path         string `json:"path"` // as it is seen in a machine: /dev/nvidia0
	Major, Minor uint32
}

// GPU is one of a machine's. The device is always known, the rest where nvidia-smi said it.
type GPU struct {
	Number int // among those of the machine, from 0, in the order of the minors of their nodes
	Device Device
	UUID   string
	Name   string
	Memory shoal.Bytes
}

// Devices are the nodes that a host or machine has.
type Devices struct {
	GPUs []GPU
	// Shared are those that every user of any GPU needs.
	Shared []Device
}

// sharedNames are the driver's own nodes below /dev.
func sharedNames() []string {
	return []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
}

// Find looks for device nodes below root, which is / unless the driver lies elsewhere. A host without GPUs has none,
// which is no error.
func Find(root string) (Devices, error) {
	var d Devices
	dev := filepath.Join(root, "dev")
	entries, err := os.ReadDir(dev)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("cannot look for GPUs: %w", err)
	}
	type numbered struct {
		n int
		GPU
	}
	var found []numbered
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "nvidia")
		n, err := strconv.ParseUint(digits, 10, 16)
		shared := slices.Contains(sharedNames(), e.Name())
		if !ok || err != nil && !shared {
			continue
		}
		node, ok := device(filepath.Join(dev, e.Name()), "/dev/"+e.Name())
		switch {
		case !ok:
		case shared:
			d.Shared = append(d.Shared, node)
		default:
			found = append(found, numbered{int(n), GPU{Device: node}})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return cmp.Compare(a.n, b.n) })
	for i, f := range found {
		f.Number = i
		d.GPUs = append(d.GPUs, f.GPU)
	}
	return d, nil
}

// device reads a node; false: it is no character device.
func device(path, seen string) (Device, bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return Device{}, false
	}
	return Device{Path: seen, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, true
}

// node is the number in a device's name: what nvidia-smi calls its minor.
func (d Device) node() int {
	n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(d.Path), "nvidia"))
	if err != nil {
		return -1
	}
	return n
}

// Describe adds what nvidia-smi said to what was found.
func (d Devices) Describe(said []Said) Devices {
	d.GPUs = slices.Clone(d.GPUs)
	for i := range d.GPUs {
		g := &d.GPUs[i]
		for _, s := range said {
			if s.Minor == g.Device.node() {
				g.UUID, g.Name, g.Memory = s.UUID, s.Name, s.Memory
			}
		}
	}
	return d
}

// Visible is the value of CUDA_VISIBLE_DEVICES for somebody who has the GPUs with some numbers. A UUID means the same
// GPU whatever else can be seen. Without it a number counts among those that can be opened: alone says that these are the
// only ones.
func (d Devices) Visible(numbers []int, alone bool) string {
	var ids []string
	for i, n := range numbers {
		switch {
		case n >= 0 && n < len(d.GPUs) && d.GPUs[n].UUID != "":
			ids = append(ids, d.GPUs[n].UUID)
		case alone:
			ids = append(ids, strconv.Itoa(i))
		default:
			ids = append(ids, strconv.Itoa(n))
		}
	}
	return strings.Join(ids, ",")
}

// Others are the devices of the GPUs that have none of the numbers.
func (d Devices) Others(numbers []int) []Device {
	var out []Device
	for _, g := range d.GPUs {
		if !slices.Contains(numbers, g.Number) {
			out = append(out, g.Device)
		}
	}
	return out
}
