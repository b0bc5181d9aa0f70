// Package names lists what a shell's Tab offers of what a server knows; behind a tab character may stand
// what tells one from another.
package names

import (
	"context"

	"github.com/shoal-pool/shoal/client"
)

// List lists names.
type List func(ctx context.Context, c *client.Client) ([]string, error)

// Pools lists pools.
func Pools(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Pools(ctx)
	var out []string
	for _, o := range list {
		out = append(out, string(o.Name))
	}
	return out, err
}

// Groups lists groups.
func Groups(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Groups(ctx)
	var out []string
	for _, o := range list {
		out = append(out, string(o.Name))
	}
	return out, err
}

// Users lists users.
func Users(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Users(ctx)
	var out []string
	for _, o := range list {
		out = append(out, string(o.Name))
	}
	return out, err
}

// Images lists images.
func Images(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Images(ctx)
	var out []string
	for _, o := range list {
		out = append(out, o.Name)
	}
	return out, err
}

// Machines lists machines by their IDs.
func Machines(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Machines(ctx, client.MachineQuery{})
	var out []string
	for _, o := range list {
		out = append(out, string(o.ID)+"\t"+string(o.Pool)+", "+o.Shown())
	}
	return out, err
}

// Sessions lists sessions by their IDs.
func Sessions(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Sessions(ctx, client.SessionQuery{})
	var out []string
	for _, o := range list {
		out = append(out, string(o.ID)+"\t"+string(o.User)+" on "+string(o.Pool)+", "+string(o.State))
	}
	return out, err
}

// offeredJobs bounds what a Tab lists of jobs: the newest.
const offeredJobs = 50

// Jobs lists the newest jobs by their numbers.
func Jobs(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Jobs(ctx, client.JobQuery{Limit: offeredJobs})
	var out []string
	for _, o := range list {
		out = append(out, string(o.ID)+"\t"+o.Spec.Name+" "+string(o.State))
	}
	return out, err
}

// Apps lists web apps by their IDs.
func Apps(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.Apps(ctx, client.AppQuery{})
	var out []string
	for _, o := range list {
		out = append(out, string(o.ID)+"\t"+o.Endpoint+" of "+string(o.User)+", "+string(o.State))
	}
	return out, err
}
