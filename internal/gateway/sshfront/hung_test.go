package sshfront

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
)

// A machine that stops answering: the user is told and offered another place; after a
// while her sessions are ended, and the next login goes elsewhere.
func TestHungMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad, good := w.newMachine("m-bad"), w.newMachine("m-good")
	w.router.set(func(_ context.Context, r route.Request, _ func(string)) (*machine, error) {
		w.router.mu.Lock()
		defer w.router.mu.Unlock()
		if r.New || r.Avoid == "m-bad" || len(w.router.suspects) > 0 {
			return good, nil
		}
		return bad, nil
	})
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs lockedBuffer
	s.Stdout, s.Stderr = &out, &errs
	in, _ := s.StdinPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "before\n")
	w.until("it echoes", func() bool { return out.String() == "before\n" })
	bad.freeze(true)
	t.Cleanup(func() { bad.freeze(false) })
	io.WriteString(in, "after\n")
	w.until("she is told", func() bool {
		return strings.Contains(errs.String(), "machine m-bad has not answered for 5 s; log in as alice+lab/new")
	})

	// It answers again: nothing is lost.
	bad.freeze(false)
	w.until("she is told that it answers", func() bool {
		return strings.Contains(errs.String(), "m-bad answers again") && out.String() == "before\nafter\n"
	})
	bad.freeze(true)
	io.WriteString(in, "never\n")

	// Meanwhile another login of hers waits, and one for a fresh place does not.
	waits := w.ssh("alice@127.0.0.1", "echo waited")
	said := &lockedBuffer{}
	waits.Stdout, waits.Stderr = said, said
	other := w.ssh("bob@127.0.0.1", "echo waited")
	otherSaid := &lockedBuffer{}
	other.Stdout, other.Stderr = otherSaid, otherSaid
	w.until("the machine is found stalled again", func() bool { return strings.Count(errs.String(), "has not answered for 5 s") == 2 })
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if got := w.run(w.ssh("-l", "alice+lab/new", "127.0.0.1", "echo fresh"), nil); got.out != "fresh\n" {
		t.Errorf("a fresh place: %+v", got)
	}
	err = s.Wait()
	if _, status := err.(*ssh.ExitError); err == nil || status {
		t.Errorf("the session ended with %v, want no status", err)
	}
	if !strings.Contains(errs.String(), "has not answered for 30 s; connect again") {
		t.Errorf("told only %q", errs.String())
	}
	w.router.mu.Lock()
	suspects := append([]shoal.MachineID(nil), w.router.suspects...)
	w.router.mu.Unlock()
	if len(suspects) == 0 || suspects[0] != "m-bad" {
		t.Errorf("suspects: %v", suspects)
	}
	if err := waits.Wait(); err != nil || !strings.Contains(said.String(), "waited") || !strings.Contains(said.String(), "does not answer") {
		t.Errorf("the login that waited: %v, %q", err, said.String())
	}
	if err := other.Wait(); err != nil || !strings.Contains(otherSaid.String(), "waited") {
		t.Errorf("bob's login: %v, %q", err, otherSaid.String())
	}
	if err := client.Wait(); err == nil {
		t.Log("the connection ended in good order")
	}
}

func TestMachineGone(t *testing.T) {
	w := newWorld(t)
	m, other := w.newMachine("m-1"), w.newMachine("m-2")
	w.router.to(m)
	cmd := w.ssh("alice@127.0.0.1", "echo ready; sleep 300")
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("the session runs", func() bool { return strings.Contains(said.String(), "ready") })
	m.freeze(true)
	w.router.set(func(_ context.Context, r route.Request, _ func(string)) (*machine, error) {
		if r.Avoid == "m-1" {
			return other, nil
		}
		return m, nil
	})
	waits := w.ssh("bob@127.0.0.1", "echo placed")
	placed := &lockedBuffer{}
	waits.Stdout, waits.Stderr = placed, placed
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("bob waits", func() bool { return len(w.front.links.list()) == 2 })
	start := time.Now()
	w.front.MachineGone("m-1")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 255 || !strings.Contains(said.String(), "machine m-1 is gone") {
		t.Errorf("%v, %q", err, said.String())
	}
	if err := waits.Wait(); err != nil || !strings.Contains(placed.String(), "placed") {
		t.Errorf("%v, %q", err, placed.String())
	}
	t.Logf("over after %v", time.Since(start))
	m.freeze(false)
}

// A session that is ended by hand ends her connections, and says why.
func TestSessionEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.set(func(context.Context, route.Request, func(string)) (*machine, error) { return m, nil })
	done := make(chan struct{})
	w.router.mu.Lock()
	w.router.done = done
	w.router.mu.Unlock()
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var errs lockedBuffer
	s.Stderr = &errs
	if err := s.Start("sleep 600"); err != nil {
		t.Fatal(err)
	}
	close(done)
	if err := s.Wait(); err == nil {
		t.Error("the command ended well")
	}
	if !strings.Contains(errs.String(), "your session was ended") {
		t.Errorf("she was told %q", errs.String())
	}
	if err := client.Wait(); err == nil {
		t.Error("the connection ended well")
	}
}

// The machine's sshd dies under a session: the user is told, and gets ssh's own exit status.
func TestMachineDies(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	cmd := w.ssh("alice@127.0.0.1", "echo ready; sleep 300")
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("the session runs", func() bool { return strings.Contains(said.String(), "ready") })
	m.stop()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 255 || !strings.Contains(said.String(), "the connection to machine m-1 was lost") {
		t.Errorf("%v, %q", err, said.String())
	}
	w.until("the part is closed", func() bool { return w.router.open() == 0 })
}

// A machine with a certificate for another name, or none of ours, gets nobody.
func TestWrongMachine(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(&machine{id: "m-2", addr: m.addr})
	got := w.run(w.ssh("alice@127.0.0.1", "echo hi"), nil)
	if got.out != "" || got.code != 75 || !strings.Contains(got.err, "do not trust each other") {
		t.Errorf("%+v", got)
	}
	w.log.mu.Lock()
	w.log.b.Reset() // the gateway is right to log this as an error
	w.log.mu.Unlock()
}

func TestShutdown(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	cmd := w.ssh("alice@127.0.0.1", "echo ready; sleep 300")
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("the session runs", func() bool { return strings.Contains(said.String(), "ready") })
	w.stop()
	cmd.Wait()
	if !strings.Contains(said.String(), "the gateway is shutting down") {
		t.Errorf("told %q", said.String())
	}
}

// Who is at a machine stays when the gateway serves nobody new any more: until she goes, or for as long as she may.
func TestLinger(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Lingers = true })
	w.router.to(w.newMachine("m-1"))
	begin := func(command string) (*lockedBuffer, io.Writer, func()) {
		cmd := w.ssh("alice@127.0.0.1", "echo ready; "+command)
		said := &lockedBuffer{}
		cmd.Stdout, cmd.Stderr = said, said
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.until("the session runs", func() bool { return strings.Contains(said.String(), "ready") })
		return said, in, func() { cmd.Wait() }
	}
	goes, in, gone := begin("read line; echo heard $line")
	stays, _, ended := begin("sleep 300")
	w.stop()
	if c, err := net.Dial("tcp", w.addr); err == nil {
		c.Close()
		t.Error("somebody new is taken")
	}
	if _, err := io.WriteString(in, "this\n"); err != nil {
		t.Error(err)
	}
	gone()
	if !strings.Contains(goes.String(), "heard this") {
		t.Errorf("the session that goes on said %q", goes.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w.front.Linger(ctx)
	ended()
	if !strings.Contains(stays.String(), "the gateway is shutting down") {
		t.Errorf("who stayed for too long was told %q", stays.String())
	}
}

// Who is held when a gateway that waits serves nobody new any more comes to her machine.
func TestLingerWhileHeld(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Lingers, c.Waits = true, true })
	m, held, let := w.newMachine("m-1"), make(chan struct{}), make(chan struct{})
	w.router.set(func(ctx context.Context, _ route.Request, _ func(string)) (*machine, error) {
		close(held)
		select {
		case <-let:
			return m, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	cmd := w.ssh("alice@127.0.0.1", "echo there")
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-held
	w.stop()
	close(let)
	w.front.Linger(t.Context())
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "there") {
		t.Errorf("%v: told %q", err, said.String())
	}
}

// Who is still held when the gateway ends is not told that she is denied.
func TestShutdownWhileHeld(t *testing.T) {
	w := newWorld(t)
	held := make(chan struct{}, 20)
	w.router.mu.Lock()
	w.router.place = func(ctx context.Context, _ route.Request, _ func(string)) (*machine, error) {
		held <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w.router.mu.Unlock()
	var ends []func() error
	var said []*lockedBuffer
	for range cap(held) {
		cmd := w.ssh("alice@127.0.0.1", "true")
		text := &lockedBuffer{}
		cmd.Stdout, cmd.Stderr = text, text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ends, said = append(ends, cmd.Wait), append(said, text)
	}
	for range cap(held) {
		<-held
	}
	w.stop()
	for i, end := range ends {
		_ = end()
		if strings.Contains(said[i].String(), "denied") {
			t.Errorf("told %q", said[i].String())
		}
	}
}
