package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/rig"
)

// gatewayRows compares the ways to one machine: throughput, login, keystrokes.
func gatewayRows(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "gateway")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, 1, rig.Pool("lab", "interactive", "{cpus: 2, memory: 1GiB}", "{min: 1, max: 1}", 8, "")); err != nil {
		return err
	}
	machines, err := w.Ready(ctx, "lab", 1, time.Minute)
	if err != nil {
		return err
	}
	r, err := w.newRoutes(machines[0])
	if err != nil {
		return err
	}
	defer r.close()
	for _, via := range []string{viaGateway, direct, viaJump, viaHAProxy} {
		if _, err := r.timed(ctx, via, nil, "true"); err != nil { // and warms it up
			return err
		}
	}
	for _, rows := range []func(context.Context, *bench, *routes) error{throughput, logins, keystrokes} {
		if err := rows(ctx, b, r); err != nil {
			return err
		}
	}
	return nil
}

const streamMiB = 400

// throughput moves one stream from a machine to here.
func throughput(ctx context.Context, b *bench, r *routes) error {
	for _, cipher := range []struct{ name, option string }{{"default cipher", ""}, {"aes128-gcm", "aes128-gcm@openssh.com"}} {
		var options []string
		if cipher.option != "" {
			options = []string{"-c", cipher.option}
		}
		rates := map[string][]float64{}
		for range b.rounds {
			for _, via := range []string{viaGateway, direct, viaJump, viaHAProxy} {
				took, err := r.timed(ctx, via, options, "head -c "+strconv.Itoa(streamMiB<<20)+" /dev/zero")
				if err != nil {
					return err
				}
				rates[via] = append(rates[via], streamMiB/took.Seconds())
			}
		}
		for _, p := range []struct {
			via  string
			goal float64
		}{{direct, 0.65}, {viaJump, 0.8}} {
			b.add(Row{Measure: "one stream, " + cipher.name + ", against " + p.via, Unit: "MiB/s",
				Ours: rates[viaGateway], Peer: rates[p.via], PeerIs: p.via}.judge(atLeast("ratio", p.goal)))
		}
		// HAProxy moves sealed bytes and so cannot route by user: shown, not a goal beyond jump's.
		b.add(Row{Measure: "one stream, " + cipher.name + ", against haproxy", Unit: "MiB/s", Ours: rates[viaGateway],
			Peer: rates[viaHAProxy], PeerIs: viaHAProxy}.judge(atLeast("ratio", 0.5)))
	}
	return nil
}

// logins measures connection to exit status of `true`, first ones and second ones beside an open connection.
func logins(ctx context.Context, b *bench, r *routes) error {
	took := map[string][]float64{}
	round := func(name, via string) error {
		d, err := r.timed(ctx, via, nil, "true")
		took[name] = append(took[name], d.Seconds()*1000)
		return err
	}
	for range 4 * b.rounds {
		// Gateways keep a machine's connection for the user's next one, so a first one is one by the
		// route with another pool name spelled out: here the machine's, which is a share of its own.
		for _, via := range []string{viaGateway, direct, viaJump, viaHAProxy} {
			if err := round(via, via); err != nil {
				return err
			}
		}
	}
	b.add(Row{Measure: "ssh login, against ssh -J", Unit: "ms", Ours: took[viaGateway], Peer: took[viaJump], PeerIs: viaJump}.judge(atMost("ratio", 1)))
	b.add(Row{Measure: "ssh login, against haproxy", Unit: "ms", Ours: took[viaGateway], Peer: took[viaHAProxy], PeerIs: viaHAProxy}.judge(atMost("ratio", 1.2)))
	open, err := r.dial(viaGateway)
	if err != nil {
		return err
	}
	defer open.Close()
	took = map[string][]float64{}
	for range 4 * b.rounds {
		for _, via := range []string{viaGateway, direct} {
			if err := round(via, via); err != nil {
				return err
			}
		}
	}
	b.add(Row{Measure: "second connection of a user to the same machine, against a direct login", Unit: "ms",
		Ours: took[viaGateway], Peer: took[direct], PeerIs: direct}.judge(atMost("ratio", 1)))
	return nil
}

const keystrokeSamples = 300

// keystrokes measures the echo of single bytes on a terminal.
func keystrokes(_ context.Context, b *bench, r *routes) error {
	medians := map[string][]float64{}
	for range b.rounds {
		for _, via := range []string{viaGateway, direct} {
			c, err := r.dial(via)
			if err != nil {
				return err
			}
			ms, err := echo(c)
			if err := errors.Join(err, c.Close()); err != nil {
				return fmt.Errorf("by %s: %w", via, err)
			}
			medians[via] = append(medians[via], ms)
		}
	}
	b.add(Row{Measure: "keystroke echo", Unit: "ms", Ours: medians[viaGateway], Peer: medians[direct], PeerIs: direct,
		Note: "medians of " + strconv.Itoa(keystrokeSamples) + " keystrokes"}.judge(atMost("difference", 0.15)))
	return nil
}

// echo returns the median in milliseconds of keystrokes in one session.
func echo(c *ssh.Client) (float64, error) {
	s, err := c.NewSession()
	if err != nil {
		return 0, err
	}
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		return 0, err
	}
	in, err := s.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := s.Start("stty raw -echo; echo ready; exec cat"); err != nil {
		return 0, err
	}
	var greeting []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(greeting), "ready\n") {
		if _, err := io.ReadFull(out, one); err != nil {
			return 0, fmt.Errorf("no terminal: %w", err)
		}
		if one[0] != '\r' {
			greeting = append(greeting, one[0])
		}
	}
	var took []float64
	for range keystrokeSamples {
		start := time.Now()
		if _, err := in.Write([]byte("x")); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(out, one); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	return median(took), nil
}

// idleSessions measures what the gateway keeps for each of 200 users who do nothing.
func idleSessions(ctx context.Context, b *bench) (err error) {
	const users = 200
	w, err := b.world(ctx, "idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Apply(ctx, users, rig.Pool("lab", "interactive", "{cpus: 2, memory: 4GiB}", "{min: 1, max: 1}", users, "")); err != nil {
		return err
	}
	if _, err := w.Ready(ctx, "lab", 1, time.Minute); err != nil {
		return err
	}
	before, err := settledPSS(w.Server.Process.Pid) // once: a heap that has grown stays so for a while
	if err != nil {
		return err
	}
	var samples []float64
	for range b.rounds {
		end, err := w.crowdIn(users)
		if err != nil {
			end()
			return err
		}
		time.Sleep(10 * time.Second) // idle, not just logged in
		after, err := settledPSS(w.Server.Process.Pid)
		end()
		if err != nil {
			return err
		}
		samples = append(samples, (after-before)/users)
	}
	b.add(Row{Measure: "an idle session at the gateway, of 200 users", Unit: "KiB", Ours: samples,
		Note: "proportional set size of the server"}.judge(atMost("ours", 128)))
	return nil
}

// crowdIn opens a terminal with a shell for each of n users.
func (w *world) crowdIn(n int) (end func(), err error) {
	var open []*ssh.Client
	end = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for i := range n {
		c, err := ssh.Dial("tcp", "127.0.0.1:"+w.Port, &ssh.ClientConfig{User: fmt.Sprintf("u%d", i+1),
			Auth: []ssh.AuthMethod{ssh.PublicKeys(w.Signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			return end, fmt.Errorf("user u%d: %w", i+1, err)
		}
		open = append(open, c)
		s, err := c.NewSession()
		if err != nil {
			return end, err
		}
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			return end, err
		}
		if _, err := s.StdinPipe(); err != nil { // without one the shell would be at its end at once
			return end, err
		}
		if err := s.Shell(); err != nil {
			return end, err
		}
	}
	return end, nil
}

// settledPSS is the proportional set size of a process in KiB, once it has been the same for a while.
func settledPSS(pid int) (float64, error) {
	last := -1.0
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		now := -1.0
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				now, err = strconv.ParseFloat(f[1], 64)
			}
		}
		if err != nil || now < 0 {
			return 0, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
		}
		if last > 0 && now > last*0.99 && now < last*1.01 {
			return now, nil
		}
		last = now
		time.Sleep(3 * time.Second)
	}
}
