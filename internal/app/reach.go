package app

import (
	"context"
	"net"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/reach"
	"github.com/shoal-pool/shoal/internal/store"
)

// makeReach makes what connects the gateway to machines.
func (a *App) makeReach() {
	dial := a.opts.Dial
	if dial == nil {
		dial = machineDialer().DialContext
	}
	a.reach = reach.New(reach.Config{Dial: dial, HostCA: a.keys.hostCA.PublicKey(), Log: a.log,
		Machine: func(ctx context.Context, id shoal.MachineID) (m shoal.Machine, err error) {
			err = a.store.View(ctx, func(tx *store.Tx) error {
				m, err = tx.Machines().Get(id)
				return err
			})
			return m, err
		},
		Here: func(provider string) bool { return a.opts.Dial != nil || a.control(provider).URL == controlInMachine },
		Send: func(id shoal.MachineID, r api.Record) bool { return a.hub.Send(id, r) },
		Told: a.tellReached})
}

// machineDialer connects directly to machines.
func machineDialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
}

// tellReached puts on record by which way a machine is reached. A server that was started anew finds out again what is on record.
func (a *App) tellReached(id shoal.MachineID, way, why string) {
	code, sentence := "reachedDirectly", "machine "+string(id)+" is reached directly: "+why
	if way == reach.Agent {
		code, sentence = "reachedByAgent", "machine "+string(id)+" is reached through its agent: "+why
	}
	err := a.store.Update(context.Background(), func(tx *store.Tx) error {
		m, err := tx.Machines().Get(id)
		if err != nil {
			return err
		}
		const lately = 50
		events, err := tx.EventsAbout(shoal.ObjectMachine, string(id), lately)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Code == "reachedDirectly" || e.Code == "reachedByAgent" {
				if e.Code == code {
					return nil
				}
				break
			}
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectMachine, Name: string(id), Pool: m.Pool, Code: code, Sentence: sentence})
		return nil
	})
	if err != nil {
		a.log.Warn("it cannot be put on record by which way a machine is reached", "machine", id, "way", way, "err", err)
	}
}

// dialWeb connects to servers of browsers: machines' apps by the way to their machine, others by their address.
func (a *App) dialWeb(ctx context.Context, network, address string) (net.Conn, error) {
	address = a.ways.From(address)
	if id, ok := a.apps.On(address); ok {
		return a.reach.DialInside(ctx, id, address)
	}
	if a.opts.Dial != nil {
		return a.opts.Dial(ctx, network, address)
	}
	d := net.Dialer{KeepAlive: -1} // the front end sees to that, and to its limits
	return d.DialContext(ctx, network, address)
}
