package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/activity"
	"github.com/shoal-pool/shoal/internal/host/apps"
	"github.com/shoal-pool/shoal/internal/host/desktop"
	"github.com/shoal-pool/shoal/internal/host/localdisk"
	"github.com/shoal-pool/shoal/internal/host/probes"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/host/tasks/runner"
	"github.com/shoal-pool/shoal/provider"
)

// runMain runs the loop until it is told to end, or a newer agent is there.
func runMain() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := runAgent(ctx, log)
	switch {
	case errors.Is(err, agent.ErrReplaced):
		return 0
	case err != nil:
		log.Error("the agent cannot go on", "error", err)
		return 1
	}
	return 0
}

func runAgent(ctx context.Context, log *slog.Logger) error {
	join, err := readJoin()
	if err != nil {
		return err
	}
	state := filepath.Join(stateDir, string(join.Machine))
	for _, dir := range []string{agentDir, stateDir, state} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cannot keep state: %w", err)
		}
	}
	m, err := newMachine(state, log)
	if err != nil {
		return err
	}
	relay, err := openRelay()
	if err != nil {
		return err
	}
	door, err := openDoor()
	if err != nil {
		return err
	}
	m.gpus = findGPUs(ctx, log)
	people := &agent.People{}
	groups, looked := openSlices(log, m.gpus != nil), make(chan struct{}, 1)
	run, err := runner.Open(runner.Config{Dir: filepath.Join(state, "tasks"), Agent: agentPath, Groups: groups, Lookup: person(people),
		Mounts: people.Mounts, Working: newHeap(!strings.HasPrefix(join.Control, "unix:")).working, GPUs: m.gpus.settings(), Adapt: m.gpus.adapt, Log: log})
	if err != nil {
		return err
	}
	defer run.Close()
	keeper, err := apps.Open(apps.Config{Dir: filepath.Join(agentDir, "apps"), Agent: agentPath, Groups: groups, Lookup: person(people), Local: localdisk.Dir, Log: log})
	if err != nil {
		return err
	}
	defer keeper.Close()
	asker := probes.New(probes.Asker(desktop.Ask))
	defer asker.Close()
	watcher := activity.New(activity.Config{Name: people.Name, Tasks: run.Running, GPUs: m.gpus.inUse})
	site := activity.NewSite(log, "SHOAL_MACHINE="+string(join.Machine), "SHOAL_POOL="+string(join.Pool))
	defer site.Close()
	a, err := agent.New(agent.Config{Join: join, Version: version, Host: m, Tasks: run, Fence: run, Uptime: tasks.Uptime, Watcher: &balanced{Watcher: speaker{m.leavers(watcher), noticesDir, people}, groups: groups, looked: looked, log: log}, Desktop: m.desktop, Apps: &readyApps{Apps: keeper, vault: m.vault, lookup: person(people), notices: noticesDir, log: log}, Probes: asker, Site: site, Notice: keepNotice(log), People: people, Log: log,
		TokenFile: filepath.Join(agentDir, "token"), Relay: relay, Door: door, Replaced: replaced(), Address: probes.Own, LetIn: letIn, HubListen: openHub})
	if err != nil {
		return err
	}
	go shareOut(ctx, groups, func() shoal.MilliCPU { return shoal.MilliCPU(m.cpus.Load()) }, looked, log)
	return a.Run(ctx)
}

// person tells as whom a user's tasks run.
func person(people *agent.People) func(shoal.UserName) (tasks.Person, bool) {
	return func(name shoal.UserName) (tasks.Person, bool) {
		account, groups, ok := people.Person(name)
		return tasks.Person{UID: account.UID, GID: account.GID, Groups: groups, Home: account.Home, Shell: account.Shell}, ok
	}
}

func readJoin() (provider.Join, error) {
	var join provider.Join
	b, err := os.ReadFile(joinFile)
	if err == nil {
		err = json.Unmarshal(b, &join)
	}
	if err == nil && (join.Machine == "" || join.Control == "") {
		err = errors.New("it names no machine, or no control plane")
	}
	if err != nil {
		return join, shoal.Errorf(shoal.KindInvalid, "cannot read %s: %w", joinFile, err)
	}
	return join, nil
}

// openRelay listens where users' programs ask.
func openRelay() (net.Listener, error) {
	if err := os.Remove(relayPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", relayPath)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for users' requests: %w", err)
	}
	return l, os.Chmod(relayPath, 0o666) // who is asking is known from the kernel
}

// openHub listens where notebook servers look for JupyterHub's API.
func openHub() (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(api.HubPort)))
}

// openDoor listens for the door's knocks.
func openDoor() (<-chan struct{}, error) {
	if err := os.Remove(doorPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: doorPath, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen at the door: %w", err)
	}
	knocks := make(chan struct{}, 1)
	go func() { // ends with the process
		b := make([]byte, 8)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			select {
			case knocks <- struct{}{}:
			default:
			}
		}
	}()
	return knocks, nil
}

// replaced tells whether another binary lies where the running one lay.
func replaced() func() bool {
	mine, err := os.Stat("/proc/self/exe")
	return func() bool {
		if err != nil {
			return false
		}
		there, err := os.Stat(agentPath)
		return err == nil && there.Mode().IsRegular() && !os.SameFile(mine, there)
	}
}

var _ agent.Host = (*machine)(nil)
