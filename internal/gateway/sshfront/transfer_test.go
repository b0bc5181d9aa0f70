package sshfront

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// transferCount is how many transfers TestTransfers makes; SHOAL_COUNT overrides it.
const transferCount = 42

// Data moves both ways with standard input closed, open and half-closed, by every usual tool,
// and arrives whole, with the exit code that a direct login gives.
func TestTransfers(t *testing.T) {
	t.Parallel()
	count := transferCount
	if n, err := strconv.Atoi(os.Getenv("SHOAL_COUNT")); err == nil && n > 0 {
		count = n
	}
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range count {
		x := &transfer{w: w, m: m, i: i, size: sizes(random), code: random.IntN(200)}
		x.data = filepath.Join(w.dir, "data"+itoa(i))
		content := make([]byte, x.size)
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(content)
		write(t, x.data, string(content), 0o644)
		x.sum = fmt.Sprintf("%x", sha256.Sum256(content))
		kind := transfers[i%len(transfers)]
		if err := kind.do(x); err != nil {
			t.Errorf("transfer %d, %s of %d bytes: %v", i, kind.name, x.size, err)
		}
		os.Remove(x.data)
	}
}

func sizes(r *rand.Rand) int {
	switch r.IntN(4) {
	case 0:
		return r.IntN(100)
	case 1:
		return 32768 - 20 + r.IntN(40) // around a packet
	case 2:
		return 2<<20 - 20 + r.IntN(40) // around a window
	}
	return r.IntN(6 << 20)
}

type transfer struct {
	w          *world
	m          *machine
	i          int
	size, code int
	data, sum  string
}

var transfers = []struct {
	name string
	do   func(*transfer) error
}{
	{"download, stdin closed", func(x *transfer) error { return x.download(nil, false) }},
	{"download, stdin open", func(x *transfer) error { return x.download(nil, true) }},
	{"download, stdin half-closed", func(x *transfer) error { return x.download(strings.NewReader("some input"), false) }},
	{"upload", func(x *transfer) error { return x.upload() }},
	{"both ways at once", func(x *transfer) error { return x.both() }},
	{"stderr", func(x *transfer) error { return x.stderr() }},
	{"scp up and down", func(x *transfer) error {
		return x.tool("scp -q %o %f alice@127.0.0.1:x%i && scp -q %o alice@127.0.0.1:x%i %f.back")
	}},
	{"scp -O up and down", func(x *transfer) error {
		return x.tool("scp -q -O %o %f alice@127.0.0.1:x%i && scp -q -O %o alice@127.0.0.1:x%i %f.back")
	}},
	{"sftp up and down", func(x *transfer) error {
		return x.tool("printf 'put %f x%i\\nget x%i %f.back\\n' | sftp -q -b - %o alice@127.0.0.1 >/dev/null")
	}},
	{"rsync up and down", func(x *transfer) error {
		return x.tool("rsync -e 'ssh %o' %f alice@127.0.0.1:x%i && rsync -e 'ssh %o' alice@127.0.0.1:x%i %f.back")
	}},
	{"tar through", func(x *transfer) error {
		return x.tool("mkdir %f.d && cp %f %f.d/f && tar -C %f.d -cf - f | ssh %o alice@127.0.0.1 'mkdir -p d%i && tar -C d%i -xf -' && " +
			"ssh %o alice@127.0.0.1 'tar -C d%i -cf - f' </dev/null | tar -C %f.d -xf - && mv %f.d/f %f.back && rm -r %f.d")
	}},
	{"terminal", func(x *transfer) error { return x.terminal() }},
}

// put lays the data where the machine's users can read it.
func (x *transfer) put() string {
	os.Chmod(x.data, 0o644)
	return x.data
}

func (x *transfer) check(what, sum string, code, wantCode int) error {
	if sum != x.sum || code != wantCode {
		return fmt.Errorf("%s: sum %.8s and code %d, want %.8s and %d", what, sum, code, x.sum, wantCode)
	}
	return nil
}

func (x *transfer) download(stdin io.Reader, open bool) error {
	command := fmt.Sprintf("cat %s; exit %d", x.put(), x.code)
	for _, addr := range []string{x.m.addr, x.w.addr} {
		cmd := x.w.sshTo(addr, "alice@127.0.0.1", command)
		if open {
			in, err := cmd.StdinPipe()
			if err != nil {
				return err
			}
			defer in.Close()
		}
		sum := sha256.New()
		cmd.Stdout = sum
		got := x.w.run(cmd, stdin)
		if err := x.check(addr, fmt.Sprintf("%x", sum.Sum(nil)), got.code, x.code); err != nil {
			return fmt.Errorf("%w; %s", err, got.err)
		}
	}
	return nil
}

func (x *transfer) upload() error {
	f, err := os.Open(x.data)
	if err != nil {
		return err
	}
	defer f.Close()
	got := x.w.run(x.w.ssh("alice@127.0.0.1", fmt.Sprintf("sha256sum; exit %d", x.code)), f)
	return x.check("upload", strings.Fields(got.out + " -")[0], got.code, x.code)
}

func (x *transfer) both() error {
	f, err := os.Open(x.data)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := x.w.ssh("alice@127.0.0.1", fmt.Sprintf("cat; exit %d", x.code))
	sum := sha256.New()
	cmd.Stdout = sum
	got := x.w.run(cmd, f)
	return x.check("both ways", fmt.Sprintf("%x", sum.Sum(nil)), got.code, x.code)
}

func (x *transfer) stderr() error {
	cmd := x.w.ssh("alice@127.0.0.1", fmt.Sprintf("cat %s >&2; echo out; exit %d", x.put(), x.code))
	sum := sha256.New()
	cmd.Stderr = sum
	got := x.w.run(cmd, nil)
	if got.out != "out\n" {
		return fmt.Errorf("stdout: %q", got.out)
	}
	return x.check("stderr", fmt.Sprintf("%x", sum.Sum(nil)), got.code, x.code)
}

func (x *transfer) terminal() error {
	cmd := x.w.ssh("-tt", "alice@127.0.0.1", fmt.Sprintf("stty raw -echo; cat %s; exit %d", x.put(), x.code))
	sum := sha256.New()
	cmd.Stdout = sum
	got := x.w.run(cmd, nil)
	return x.check("terminal", fmt.Sprintf("%x", sum.Sum(nil)), got.code, x.code)
}

// tool runs a script in which %o are ssh's options, %f is the file and %i the number; it leaves what came back in %f.back.
func (x *transfer) tool(script string) error {
	script = strings.NewReplacer("%o", strings.Join(x.w.options(x.w.addr), " "), "%f", x.data, "%i", itoa(x.i)).Replace(script)
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = x.w.dir
	got := x.w.run(cmd, nil)
	back, err := os.ReadFile(x.data + ".back")
	if err != nil {
		return fmt.Errorf("%w: %s", err, got.err)
	}
	os.Remove(x.data + ".back")
	return x.check("there and back", fmt.Sprintf("%x", sha256.Sum256(back)), got.code, 0)
}
