package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// The rhythm of watching.
const (
	watchTime  = requestTime - 10*time.Second // of one request
	watchFirst = time.Second                  // between two that end early, longer and longer
	watchLast  = 30 * time.Second
)

// watch tells of changes as long as ctx lasts. One watch goes on where the former ended. Where that cannot be, the cluster having
// forgotten what came since, it begins anew, and the next Observe shows what was missed.
func (p *Provider) watch(ctx context.Context) {
	for _, ns := range p.cfg.Namespaces {
		go func() {
			from, wait := "", watchFirst
			for ctx.Err() == nil {
				began := time.Now()
				if from == "" {
					from = p.present(ctx, ns)
					p.strays.Store(true)
					p.tell()
				}
				if from != "" {
					from = p.watchOnce(ctx, ns, from)
				}
				if time.Since(began) > watchTime/2 {
					wait = watchFirst
				}
				select {
				case <-ctx.Done():
				case <-time.After(wait):
					wait = min(2*wait, watchLast)
				}
			}
		}()
	}
	<-ctx.Done()
}

// present is the version at which a watch begins, or nothing.
func (p *Provider) present(ctx context.Context, ns string) string {
	one := p.ours()
	one.Limit = 1
	list, err := p.cfg.Eyes.CoreV1().Pods(ns).List(ctx, one)
	if err != nil {
		return ""
	}
	return list.ResourceVersion
}

// watchOnce tells of what comes after a version, and returns the last that it saw; nothing if it must begin anew.
func (p *Provider) watchOnce(ctx context.Context, ns, from string) string {
	options := p.ours()
	seconds := int64(watchTime.Seconds())
	options.TimeoutSeconds, options.ResourceVersion, options.AllowWatchBookmarks = &seconds, from, true
	w, err := p.cfg.Eyes.CoreV1().Pods(ns).Watch(ctx, options)
	if err != nil {
		return ""
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return ""
		}
		if o, ok := e.Object.(metav1.Object); ok && o.GetResourceVersion() != "" {
			from = o.GetResourceVersion()
		}
		if e.Type == watch.Bookmark {
			continue
		}
		if pod, ok := e.Object.(*corev1.Pod); ok && e.Type == watch.Deleted && pod.DeletionTimestamp == nil {
			p.strays.Store(true) // somebody may have taken its labels away
		}
		p.tell()
	}
	return from
}

func (p *Provider) tell() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
