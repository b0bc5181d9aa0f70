// Package vet asks providers whether what people write can work.
package vet

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Providers are those of a server, by name.
type Providers map[string]provider.Provider

// checkTime bounds a check, which may have to ask file servers.
const checkTime = 30 * time.Second

// CheckPool says whether a pool can work: its provider is there, a machine is not larger than it
// makes, its shares are there, and whatever else the provider knows. KindInvalid if not.
func (all Providers) CheckPool(ctx context.Context, p shoal.Pool, shares []shoal.Share) error {
	at, ok := all[p.Provider]
	if !ok {
		return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: this server has no provider %q", p.Name, p.Provider).
			WithHint("it has %s", strings.Join(all.names(), ", "))
	}
	if p.OS == shoal.Windows && !at.Capabilities().Windows {
		return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: its machines are to run Windows, and those of provider %s run Linux only", p.Name, p.Provider).
			WithHint("name a provider that has Windows, or leave os out and take an image with Linux")
	}
	if most := at.Capabilities().Machine; tooLarge(p.Machine, most) {
		return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: a machine with %s processors, %s and %d GPUs is larger than the largest of provider %s (%s processors, %s, %d GPUs)",
			p.Name, p.Machine.CPUs, p.Machine.Memory, p.Machine.GPUs, p.Provider, most.CPUs, most.Memory, most.GPUs).
			WithHint("lower machine.cpus, machine.memory or machine.gpus")
	}
	for _, m := range p.Mounts {
		if !slices.ContainsFunc(shares, func(s shoal.Share) bool { return s.Name == m.Share }) {
			return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: there is no share %q to mount at %s", p.Name, m.Share, m.Path).
				WithHint("add a document of kind Share")
		}
	}
	c, ok := at.(provider.Checker)
	if !ok {
		return nil
	}
	return ask(ctx, "provider "+p.Provider, func(ctx context.Context) error { return c.Check(ctx, p, shares) })
}

// tooLarge reports whether a machine is larger than the largest, where that is known. A provider that
// knows its processors or memory and gives no GPUs has none.
func tooLarge(r, most shoal.Resources) bool {
	known := most.CPUs > 0 || most.Memory > 0
	return most.CPUs > 0 && r.CPUs > most.CPUs || most.Memory > 0 && r.Memory > most.Memory || known && r.GPUs > most.GPUs
}

func (all Providers) names() []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// CheckUser says whether a user clashes with what is there already at some provider.
func (all Providers) CheckUser(ctx context.Context, u shoal.User) error {
	for _, name := range all.names() {
		c, ok := all[name].(provider.UserChecker)
		if !ok {
			continue
		}
		if err := ask(ctx, "provider "+name, func(ctx context.Context) error { return c.CheckUser(ctx, u) }); err != nil {
			return err
		}
	}
	return nil
}

// ask waits for an answer, but not for ever. A provider's own kinds of errors become the vocabulary's.
func ask(ctx context.Context, whom string, do func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, checkTime)
	answer := make(chan error, 1)
	go func() {
		defer cancel()
		answer <- do(short)
	}()
	limit := time.NewTimer(checkTime + time.Second)
	defer limit.Stop()
	select {
	case err := <-answer:
		return translate(err)
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot ask %s: %w", whom, context.Cause(ctx))
	case <-limit.C:
		return shoal.Errorf(shoal.KindUnavailable, "%s does not answer", whom).WithHint("try again in a moment")
	}
}

// translate gives a provider's error a kind of the vocabulary, unless it has one.
func translate(err error) error {
	var typed *provider.Error
	var ours *shoal.Error
	if err == nil || errors.As(err, &ours) || !errors.As(err, &typed) {
		return err
	}
	kind := shoal.KindUnavailable
	switch typed.Code {
	case provider.Invalid:
		kind = shoal.KindInvalid
	case provider.NotFound:
		kind = shoal.KindNotFound
	case provider.Denied:
		kind = shoal.KindDenied
	case provider.NoCapacity, provider.Quota:
		kind = shoal.KindExhausted
	}
	return shoal.Errorf(kind, "%w", err)
}
