package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/accounts"
)

// TestMain lets this binary be the child that makes files.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "files" {
		os.Exit(filesMain())
	}
	os.Exit(m.Run())
}

// deadMount is a directory behind which nobody answers.
func deadMount(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("shoal-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(device) // whoever waits gets an error
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A mount that does not answer costs the time it was given and is named; a good one beside it does not suffer.
func TestMountThatDoesNotAnswer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dead, alive := deadMount(t), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := doApart(ctx, accounts.Work{Root: dead, Probe: true})
		done <- err
	}()
	if _, err := doApart(t.Context(), accounts.Work{Root: alive, Probe: true, Homes: []accounts.Home{{Path: alive + "/alice", UID: 20001, GID: 20001}}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(alive + "/alice"); err != nil {
		t.Error(err)
	}
	err := <-done
	if err == nil || shoal.KindOf(err) != shoal.KindUnavailable || !strings.Contains(err.Error(), dead+" does not answer") {
		t.Errorf("the dead one: %v", err)
	}
}

// What fails on a mount is told by the child, and named.
func TestMountThatRefuses(t *testing.T) {
	if _, err := doApart(t.Context(), accounts.Work{Root: "/proc", Probe: true}); err == nil || !strings.Contains(err.Error(), "cannot write to /proc") {
		t.Errorf("%v", err)
	}
}

func TestLoadMeter(t *testing.T) {
	var l loadMeter
	l.read(shoal.Resources{CPUs: 1000})
	var got shoal.Load
	for end := time.Now().Add(time.Minute); got.CPUPercent <= 0 && l.used > 0; got = l.read(shoal.Resources{CPUs: 1000}) {
		if time.Now().After(end) {
			t.Fatalf("a busy machine measures %+v", got)
		}
		for busy := time.Now().Add(20 * time.Millisecond); time.Now().Before(busy); { // of which others may have all
		}
	}
}
