package local

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// syscallFilter refuses system calls that no program of a user needs and that reach the whole kernel. Most are
// refused to a machine's root already for want of capabilities; what this adds is that a user cannot gain
// those in a user namespace of her own, nor use the interfaces in which kernels have had most of their holes.
// All else is allowed: a machine is for any program.
func syscallFilter() *specs.LinuxSeccomp {
	denied := uint(unix.EPERM)
	absent := uint(unix.ENOSYS)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM},
		Syscalls: append(namespaceRules(denied),
			// Arguments of clone3 lie in memory, where a filter cannot look. C libraries fall back to clone.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &absent},
			// Sockets between a virtual machine and its host know no network namespaces.
			specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &denied,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_VSOCK, Op: specs.OpEqualTo}}},
			specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &absent,
				Names: []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
			specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &denied, Names: []string{
				"acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module",
				"finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "ioperm", "iopl",
				"kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount",
				"nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "query_module", "quotactl",
				"quotactl_fd", "reboot", "request_key", "setns", "settimeofday", "stime", "swapoff", "swapon",
				"sysfs", "_sysctl", "umount", "umount2", "userfaultfd", "uselib", "vm86", "vm86old",
			}}),
	}
}

// namespaceRules refuse clone and unshare with any flag that asks for a new namespace.
func namespaceRules(errno uint) []specs.LinuxSyscall {
	var rules []specs.LinuxSyscall
	for _, flag := range []uint64{unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_NEWNET, unix.CLONE_NEWPID,
		unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP} {
		rules = append(rules, specs.LinuxSyscall{Names: []string{"clone", "unshare"}, Action: specs.ActErrno, ErrnoRet: &errno,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: flag, ValueTwo: flag, Op: specs.OpMaskedEqual}}})
	}
	// CLONE_NEWTIME shares its bit with clone's exit signal, so only unshare can ask for it.
	return append(rules, specs.LinuxSyscall{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: &errno,
		Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.CLONE_NEWTIME, ValueTwo: unix.CLONE_NEWTIME, Op: specs.OpMaskedEqual}}})
}
