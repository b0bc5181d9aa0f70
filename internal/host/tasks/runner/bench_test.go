package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// cpuTime is that of this process, of its ended children, and of the supervisor with its ended children.
func cpuTime(b *testing.B, supervisor int) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if supervisor != 0 {
		for _, f := range tasks.StatFields(supervisor)[14-3 : 18-3] { // utime, stime, cutime, cstime, in hundredths of a second
			var n int64
			fmt.Sscan(string(f), &n)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// BenchmarkTask is the cost of a task that does nothing, with its output, end, and the forgetting of both.
func BenchmarkTask(b *testing.B) {
	for _, c := range []struct {
		name    string
		groups  bool
		command string
		atOnce  int
	}{{"groups", true, ":", 8}, {"groups-one-by-one", true, ":", 1}, {"groups-output", true, "echo done", 8}, {"without", false, ":", 8}} {
		b.Run(c.name, func(b *testing.B) {
			x := newBox(b, c.groups, func(c *Config) { c.Idle = time.Second })
			x.run(order("1", "true")) // the supervisor is there
			pid := x.supervisorPID()
			before := cpuTime(b, pid)
			b.ResetTimer()
			begun, done := 0, 0
			for done < b.N {
				for begun < b.N && begun-done < c.atOnce {
					x.runner.Start(order("2", c.command, func(o *api.TaskOrder) {
						o.Ref.Index = begun
						o.Resources = shoal.Resources{CPUs: 1000, Memory: 256 << 20}
					}))
					begun++
				}
				<-x.runner.Changed()
				reports, _, sent := x.runner.Collect(1 << 20)
				sent()
				var refs []shoal.AttemptRef
				for _, r := range reports {
					if r.State.Ended() {
						if r.State != shoal.JobSucceeded {
							b.Fatalf("%+v", r)
						}
						refs = append(refs, r.Ref)
					}
				}
				x.runner.Forget(api.ForgetTask{Refs: refs})
				done += len(refs)
			}
			b.StopTimer()
			rss := tasks.StatFields(pid)[24-3]
			var pages float64
			fmt.Sscan(string(rss), &pages)
			b.ReportMetric(pages*4096/1e6, "MB-supervisor")
			b.ReportMetric(float64(cpuTime(b, pid)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// BenchmarkFork is what a task is compared with: a shell as another user, with its output in a file.
func BenchmarkFork(b *testing.B) {
	dir := b.TempDir()
	who := &syscall.Credential{Uid: firstUID, Gid: firstUID, Groups: []uint32{firstUID}}
	before := cpuTime(b, 0)
	for i := 0; b.Loop(); i++ {
		out, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		pid, err := syscall.ForkExec("/bin/sh", []string{"/bin/sh", "-c", "true"}, &syscall.ProcAttr{Dir: "/", Files: []uintptr{out.Fd(), out.Fd(), out.Fd()},
			Sys: &syscall.SysProcAttr{Setsid: true, Credential: who}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			b.Fatal(err)
		}
		_ = out.Close()
	}
	b.ReportMetric(float64(cpuTime(b, 0)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkProgram is what starting this program costs, as one supervisor for each task would.
func BenchmarkProgram(b *testing.B) {
	before := cpuTime(b, 0)
	for b.Loop() {
		_ = exec.Command("/proc/self/exe", "task").Run() // says how it is called
	}
	b.ReportMetric(float64(cpuTime(b, 0)-before)/float64(b.N)/1e6, "cpu-ms/op")
}
