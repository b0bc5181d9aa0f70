package main_test

import (
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	addr := w.machine("m-boot", team(7))
	t.Logf("ready after %s at %s", time.Since(began), addr)
	t.Log(w.in("m-boot", "id alice; id bob; ls -la /shared /shared/home /shared/projects; ps axfu; cat /var/log/sshd.log; cat /etc/shadow | tail -5"))
	t.Log(w.must(addr, "alice", "id; pwd; who; ls -la; cat /proc/self/cgroup"))
	t.Log(w.in("m-boot", "cat /sys/fs/cgroup/memory/memory.usage_in_bytes; cat /sys/fs/cgroup/memory/memory.stat"))
}
