package gpu

import (
	"os"
	"path/filepath"
	"runtime"
)

// File is a file of the driver: where it lies on the host, and its place in a machine.
type File struct{ From, To string }

// libDirs are where drivers are installed, and where programs look for libraries without being told.
func libDirs() []string {
	return []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/nvidia/lib64"}
}

// libraries and tools are those of the driver. They belong to its kernel module's version, so a machine needs the host's,
// while CUDA itself is the image's.
func libraries() []string {
	return []string{"libcuda.so*", "libcudadebugger.so*", "libnvidia-*.so*", "libnvcuvid.so*", "libnvoptix.so*", "libEGL_nvidia.so*", "libGLX_nvidia.so*",
		"libGLESv*_nvidia.so*"}
}

func binDirs() []string {
	return []string{"/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin", "/bin"}
}

func tools() []string {
	return []string{"nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"}
}

// Driver lists the driver's files below root, for a machine with another root file system. A link's target is
// bound in its place, since it may lie where the machine has nothing.
func Driver(root, machine string) []File {
	var out []File
	seen := map[string]bool{}
	add := func(from, to string) {
		if real, ok := resolve(root, from); ok && !seen[to] {
			seen[to] = true
			out = append(out, File{real, to})
		}
	}
	libs := place(machine)
	for _, dir := range libDirs() {
		for _, pattern := range libraries() {
			names, _ := filepath.Glob(filepath.Join(root, dir, pattern)) // the patterns are good
			for _, name := range names {
				add(name, filepath.Join(libs, filepath.Base(name)))
			}
		}
	}
	for _, name := range tools() {
		for _, dir := range binDirs() {
			add(filepath.Join(root, dir, name), "/usr/bin/"+name)
		}
	}
	return out
}

// maxLinks bounds a chain of links.
const maxLinks = 16

// resolve follows the links of a file, as they are meant below root.
func resolve(root, path string) (string, bool) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if err != nil {
			return "", false
		}
		if info.Mode().IsRegular() {
			return path, true
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", false
		}
		if filepath.IsAbs(to) {
			path = filepath.Join(root, to)
		} else {
			path = filepath.Join(filepath.Dir(path), to)
		}
	}
	return "", false
}

// place is where a machine's programs look for libraries.
func place(machine string) string {
	arch := map[string]string{"amd64": "/usr/lib/x86_64-linux-gnu", "arm64": "/usr/lib/aarch64-linux-gnu"}[runtime.GOARCH]
	for _, dir := range []string{arch, "/usr/lib64"} {
		if info, err := os.Stat(filepath.Join(machine, dir)); dir != "" && err == nil && info.IsDir() {
			return dir
		}
	}
	return "/usr/lib"
}
