package sshfront

import (
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"
	"time"
)

// BenchmarkPath compares the way through the gateway with the direct way to the machine, in
// alternating rounds: logins, throughput up with both ciphers. It is run by hand:
//
//	go test -run '^$' -bench Path -benchtime 1x ./internal/gateway/sshfront
func BenchmarkPath(b *testing.B) {
	w := newWorld(b)
	m := w.newMachine("m-1")
	w.router.to(m)
	w.run(w.ssh("alice@127.0.0.1", "true"), nil)
	median := func(f func() time.Duration) time.Duration {
		var all []time.Duration
		for range 5 {
			all = append(all, f())
		}
		sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
		return all[2]
	}
	timed := func(cmd *exec.Cmd, in string) time.Duration {
		start := time.Now()
		if in != "" {
			f, err := os.Open(in)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			cmd.Stdin = f
		}
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Run(); err != nil {
			b.Fatal(err, errs.String())
		}
		return time.Since(start)
	}
	for range b.N {
		direct := median(func() time.Duration { return timed(w.sshTo(m.addr, "alice@127.0.0.1", "true"), "") })
		through := median(func() time.Duration { return timed(w.ssh("alice@127.0.0.1", "true"), "") })
		b.Logf("second login: direct %v, gateway %v", direct, through)
		const size = 512
		for _, cipher := range []string{"", "aes128-gcm@openssh.com"} {
			for _, down := range []bool{false, true} {
				args := []string{"-o", "Compression=no"}
				if cipher != "" {
					args = append(args, "-c", cipher)
				}
				command := fmt.Sprintf("head -c %dM /dev/zero", size)
				in := ""
				if !down {
					command, in = "cat >/dev/null", zeros(b, w, size)
				}
				rate := func(addr string) float64 {
					d := median(func() time.Duration { return timed(w.sshTo(addr, append(args, "alice@127.0.0.1", command)...), in) })
					return size / d.Seconds()
				}
				x, y := rate(m.addr), rate(w.addr)
				b.Logf("%-24s down=%-5v direct %4.0f MiB/s, gateway %4.0f MiB/s, ratio %.2f", strings.TrimSuffix(cipher, "@openssh.com"), down, x, y, y/x)
			}
		}
	}
}

func zeros(b *testing.B, w *world, mib int) string {
	path := w.dir + "/zeros"
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(mib) << 20); err != nil {
		b.Fatal(err)
	}
	return path
}
