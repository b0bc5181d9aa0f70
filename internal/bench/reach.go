package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/rig"
)

// The pools of two machines that differ by whether they let the gateway in. Each has one processor, which what carries the bytes has
// to share with sshd.
const (
	openPool = "open"
	shutPool = "shut"
	viaReach = "directly, by the same gateway"
)

// reachRows compares machines that the gateway comes to by their agents' connections with ones that it dials.
func reachRows(ctx context.Context, b *bench) (err error) {
	w, err := b.reachWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	pools := ""
	for _, name := range []string{openPool, shutPool} {
		pools += fmt.Sprintf("---\nkind: Pool\nname: %s\nprovider: exec:%s\nimage: none\nmachine: {cpus: 1, memory: 1GiB}\nsize: {min: 1, max: 1}\nseats: 100\n"+
			"mounts: [{share: team, path: /shared}]\nhome: {share: team, path: \"home/{user}\"}\n", name, filepath.Join(w.Dir, "lib", "behind"))
	}
	if err := w.Apply(ctx, 4*b.rounds+1, pools); err != nil {
		return err
	}
	for name, way := range map[string]string{openPool: "direct", shutPool: "agent"} {
		if err := w.reached(ctx, name, way); err != nil {
			return err
		}
	}
	for _, rows := range []func(context.Context, *bench) error{w.reachedRates, w.reachedLogins, w.reachedKeys} {
		if err := rows(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// reachWorld starts a server whose machines are in networks of their own.
func (b *bench) reachWorld(ctx context.Context) (*world, error) {
	dir := filepath.Join(b.dir, "reach")
	lib := filepath.Join(dir, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return nil, err
	}
	if _, err := rig.Output(exec.Command("cp", "examples/provider/runc-machines", "testdata/behind", lib)); err != nil {
		return nil, err
	}
	port, err := rig.FreePort()
	if err != nil {
		return nil, err
	}
	w, err := rig.New(ctx, b.bin, dir, "--provider", filepath.Join(lib, "behind"), "--agent-listen", "0.0.0.0:"+port, "--agent-url", "https://198.51.100.1:"+port)
	return &world{w}, err
}

// reached logs in, and looks by which way that was.
func (w *world) reached(ctx context.Context, pool, way string) error {
	machines, err := w.Ready(ctx, pool, 1, time.Minute)
	if err != nil {
		return err
	}
	if _, err := rig.Output(w.SSH(ctx, "u1+"+pool, "true")); err != nil {
		return err
	}
	return rig.Until(ctx, time.Minute, "the machine of "+pool+" is reached: "+way, func() (bool, error) {
		m, err := w.Client.Machine(ctx, machines[0].ID)
		return m.Reached == way, err
	})
}

const reachMiB = 300

// reachedRates moves one stream of ssh from the machine, and one to it.
func (w *world) reachedRates(ctx context.Context, b *bench) error {
	for _, way := range []struct {
		name string
		move func(pool string) error
	}{
		{"from the machine", func(pool string) error {
			return w.SSH(ctx, "u1+"+pool, "head -c "+strconv.Itoa(reachMiB<<20)+" /dev/zero").Run()
		}},
		{"to the machine", func(pool string) error {
			cmd := w.SSH(ctx, "u1+"+pool, "cat > /dev/null")
			cmd.Stdin = io.LimitReader(zeros{}, reachMiB<<20)
			return cmd.Run()
		}},
	} {
		rates := map[string][]float64{}
		for round := range b.rounds {
			for _, pool := range inTurn(round) {
				start := time.Now()
				if err := way.move(pool); err != nil {
					return fmt.Errorf("%s, pool %s: %w", way.name, pool, err)
				}
				rates[pool] = append(rates[pool], reachMiB/time.Since(start).Seconds())
			}
		}
		b.add(Row{Measure: "reach: one stream " + way.name + " by its agent's connection", Unit: "MiB/s", Ours: rates[shutPool], Peer: rates[openPool], PeerIs: viaReach,
			Note: "machines of one processor"}.judge(atLeast("ratio", 0.8)))
	}
	return nil
}

// inTurn has each pool be the first in every other round.
func inTurn(round int) []string {
	if round%2 == 0 {
		return []string{shutPool, openPool}
	}
	return []string{openPool, shutPool}
}

// zeros are bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// reachedLogins measures first logins: of a user who was not there lately, since the gateway keeps connections for who was.
func (w *world) reachedLogins(ctx context.Context, b *bench) error {
	took := map[string][]float64{}
	for i := range 4 * b.rounds {
		for _, pool := range inTurn(i) {
			start := time.Now()
			if _, err := rig.Output(w.SSH(ctx, fmt.Sprintf("u%d+%s", i+2, pool), "true")); err != nil {
				return err
			}
			took[pool] = append(took[pool], time.Since(start).Seconds()*1000)
		}
	}
	b.add(Row{Measure: "reach: ssh login by its agent's connection", Unit: "ms", Ours: took[shutPool], Peer: took[openPool], PeerIs: viaReach}.judge(atMost("ratio", 1.25)))
	return nil
}

// reachedKeys measures the echo of keystrokes.
func (w *world) reachedKeys(_ context.Context, b *bench) error {
	medians := map[string][]float64{}
	for round := range b.rounds {
		for _, pool := range inTurn(round) {
			c, err := ssh.Dial("tcp", "127.0.0.1:"+w.Port, &ssh.ClientConfig{User: "u1+" + pool, Auth: []ssh.AuthMethod{ssh.PublicKeys(w.Signer)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey()})
			if err != nil {
				return err
			}
			ms, err := echo(c)
			if err := errors.Join(err, c.Close()); err != nil {
				return fmt.Errorf("pool %s: %w", pool, err)
			}
			medians[pool] = append(medians[pool], ms)
		}
	}
	b.add(Row{Measure: "reach: keystroke echo by its agent's connection", Unit: "ms", Ours: medians[shutPool], Peer: medians[openPool], PeerIs: viaReach,
		Note: "medians of " + strconv.Itoa(keystrokeSamples) + " keystrokes"}.judge(atMost("difference", 0.15)))
	return nil
}
