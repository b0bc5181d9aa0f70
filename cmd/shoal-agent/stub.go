package main

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

type noTasks struct{}

func (noTasks) Want([]api.TaskOrder)            {}
func (noTasks) Start(api.TaskOrder)             {}
func (noTasks) Stop(api.StopOrder)              {}
func (noTasks) Forget([]shoal.AttemptRef)       {}
func (noTasks) Resend([]api.Resend)             {}
func (noTasks) Changed() <-chan struct{}        { return nil }
func (noTasks) Running() map[shoal.UserName]int { return nil }
func (noTasks) Collect(int) ([]api.TaskReport, []api.Output, func()) {
	return nil, nil, func() {}
}

type noWatcher struct{}

func (noWatcher) Look() (api.Activity, error)       { return api.Activity{}, nil }
func (noWatcher) Tell(shoal.UserName, string) error { return nil }
