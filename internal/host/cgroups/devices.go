package cgroups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Device is a character device.
type Device struct{ Major, Minor uint32 }

// Deny keeps the processes of the group from opening devices, whatever the nodes' permissions say. It needs the right to
// administer the whole system, which machines that are containers have not got: it is an error there, and nothing is changed.
func (g Group) Deny(devices []Device) error {
	if len(devices) == 0 {
		return nil
	}
	if g.t == nil {
		return shoal.Errorf(shoal.KindUnavailable, "cannot keep a task from devices: there are no control groups")
	}
	g.spoil() // rules stay, and the next one in it is another
	err := errors.New("no hierarchy has rules for devices")
	for _, h := range g.t.hierarchies {
		switch {
		case h.has("devices"):
			err = h.deny(g, devices)
		case h.v2:
			err = g.filter(h, devices)
		default:
			continue
		}
		if err == nil {
			return nil
		}
	}
	return shoal.Errorf(shoal.KindUnavailable, "cannot keep a task from devices: %w", err)
}

// deny writes version 1's rules.
func (h hierarchy) deny(g Group, devices []Device) error {
	for _, d := range devices {
		if err := write(g.dir(h)+"/devices.deny", fmt.Sprintf("c %d:%d rwm", d.Major, d.Minor)); err != nil {
			return err
		}
	}
	return nil
}

// filter attaches a program that the kernel asks, which is version 2's way. It goes with the group, and adds to what
// is attached above.
func (g Group) filter(h hierarchy, devices []Device) error {
	dir, err := unix.Open(g.dir(h), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	code, license := denyProgram(devices), []byte("Apache-2.0\x00")
	var pins runtime.Pinner // the kernel is told where they lie
	defer pins.Unpin()
	pins.Pin(&code[0])
	pins.Pin(&license[0])
	load := struct {
		kind, count       uint32
		code, license     uint64
		level, size       uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
		ifindex, expected uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / instruction),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return fmt.Errorf("the kernel takes no program for devices: %w", errno)
	}
	defer unix.Close(int(fd)) // the group holds it
	attach := struct{ target, program, kind, flags uint32 }{uint32(dir), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return fmt.Errorf("the group takes no program for devices: %w", errno)
	}
	return nil
}

// instruction is the size of one of the kernel's, in bytes.
const instruction = 8

// denyProgram answers no for some character devices and yes for all else. Its argument is three numbers: kind and
// access, major, minor.
func denyProgram(devices []Device) []byte {
	const (
		load   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		and    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		unlike = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		move   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		exit   = unix.BPF_JMP | unix.BPF_EXIT
	)
	var code []byte
	add := func(op, registers byte, offset int16, value uint32) {
		code = append(code, op, registers)
		code = binary.NativeEndian.AppendUint16(code, uint16(offset))
		code = binary.NativeEndian.AppendUint32(code, value)
	}
	const perDevice = 4
	add(load, 0x12, 0, 0) // r2 = kind and access
	add(and, 0x02, 0, 0xffff)
	add(load, 0x13, 4, 0) // r3 = major
	add(load, 0x14, 8, 0) // r4 = minor
	add(unlike, 0x02, int16(perDevice*len(devices)), unix.BPF_DEVCG_DEV_CHAR)
	for _, d := range devices {
		add(unlike, 0x03, 3, d.Major)
		add(unlike, 0x04, 2, d.Minor)
		add(move, 0x00, 0, 0)
		add(exit, 0, 0, 0)
	}
	add(move, 0x00, 0, 1)
	add(exit, 0, 0, 0)
	return code
}
