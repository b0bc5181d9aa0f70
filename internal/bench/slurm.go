package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// slurm is Debian's Slurm on loopback: a controller and four nodes of two processors, without accounting,
// tuned for throughput as its own documentation says for many short jobs. The epilog is there because without one
// a node that has ended a job already says so in a way after which the controller looks at its queue only at the next full second:
// 12 tasks a second instead of 66.
type slurm struct {
	dir  string
	conf string
}

const slurmConf = `ClusterName=bench
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=DIR/munge.sock
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool-%n
SlurmctldPidFile=DIR/slurmctld.pid
SlurmdPidFile=DIR/slurmd-%n.pid
SlurmctldLogFile=DIR/slurmctld.log
SlurmdLogFile=DIR/slurmd-%n.log
SlurmctldDebug=error
SlurmdDebug=error
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
Epilog=/bin/true
SchedulerType=sched/builtin
SchedulerParameters=default_queue_depth=10000,sched_min_interval=0,batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MessageTimeout=60
MaxArraySize=20001
MaxJobCount=30000
NodeName=n[1-4] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[17101-17104] CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
`

func startSlurm(ctx context.Context, b *bench) (*slurm, error) {
	// munged insists on directories that nobody else may write to, up to the root.
	dir, err := os.MkdirTemp("/run", "shoal-bench-slurm-")
	if err != nil {
		return nil, err
	}
	s := &slurm{dir: dir, conf: filepath.Join(dir, "slurm.conf")}
	if err := os.Chmod(dir, 0o755); err != nil {
		return s, err
	}
	dirs := []string{"state", "spool-n1", "spool-n2", "spool-n3", "spool-n4"}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return s, err
		}
	}
	key := make([]byte, 1024)
	rand.Read(key)
	if err := os.WriteFile(s.path("munge.key"), key, 0o600); err != nil {
		return s, err
	}
	if err := os.WriteFile(s.conf, []byte(strings.ReplaceAll(slurmConf, "DIR", dir)), 0o644); err != nil {
		return s, err
	}
	daemons := [][]string{{"munged", "--force", "--key-file=" + s.path("munge.key"), "--socket=" + s.path("munge.sock"),
		"--pid-file=" + s.path("munged.pid"), "--log-file=" + s.path("munged.log"), "--seed-file=" + s.path("munged.seed")},
		{"slurmctld"}, {"slurmd", "-N", "n1"}, {"slurmd", "-N", "n2"}, {"slurmd", "-N", "n3"}, {"slurmd", "-N", "n4"}}
	for _, d := range daemons {
		if _, err := s.run(ctx, d...); err != nil {
			return s, err
		}
	}
	for range 300 {
		out, err := s.run(ctx, "sinfo", "-h", "-o", "%T %D")
		if err == nil && strings.TrimSpace(out) == "idle 4" {
			return s, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return s, errors.New("slurm's nodes do not become idle")
}

func (s *slurm) path(name string) string { return filepath.Join(s.dir, name) }

func (s *slurm) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SLURM_CONF="+s.conf)
	cmd.Dir = s.dir
	// Daemons leave through a double fork and must not hold the pipes of output.
	if strings.HasPrefix(args[0], "slurmd") || strings.HasPrefix(args[0], "slurmctld") || args[0] == "munged" {
		return "", cmd.Run()
	}
	return rig.Output(cmd)
}

// array runs an array of n tasks and returns when none is left.
func (s *slurm) array(ctx context.Context, n int, script string) error {
	file := s.path("job.sh")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		return err
	}
	args := []string{"sbatch", "--parsable", "-o", s.path("out-%a"), file}
	if n > 1 {
		args = []string{"sbatch", "--parsable", "--array=1-" + strconv.Itoa(n), "-o", s.path("out-%a"), file}
	}
	if _, err := s.run(ctx, args...); err != nil {
		return err
	}
	return s.drained(ctx)
}

// drained waits until no job is left.
func (s *slurm) drained(ctx context.Context) error {
	for ctx.Err() == nil {
		out, err := s.run(ctx, "squeue", "-h", "-t", "PD,R")
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) == "" {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// stop ends the daemons, by the process ids that they wrote.
func (s *slurm) stop() error {
	files, err := filepath.Glob(s.path("*.pid"))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // ended by itself
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			continue
		}
		for range 100 {
			if syscall.Kill(pid, 0) != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
