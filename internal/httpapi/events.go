package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	// beatEvery is how often a quiet stream of events says that it is there, and how soon one ends
	// whose owner has lost her rights.
	beatEvery = 30 * time.Second
	// eventBatch is how many events are read at once.
	eventBatch = 256
)

// parseEventID reads a Last-Event-ID, which is a revision.
func parseEventID(text string) (shoal.Rev, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a Last-Event-ID", text).WithHint("send back the id of the last event that came, or none")
	}
	return shoal.Rev(n), nil
}

// eventsFrom is the revision after which the caller wants events.
func (a *API) eventsFrom(c *call) (since shoal.Rev, err error) {
	if id := c.req.Header.Get("Last-Event-ID"); id != "" {
		return parseEventID(id)
	}
	t, err := c.instant("since")
	if err != nil || t.IsZero() {
		return 0, err
	}
	err = a.cfg.Store.View(c.ctx, func(tx *store.Tx) error {
		since, err = tx.EventsFrom(t)
		return err
	})
	return since, err
}

func (a *API) events(c *call) error {
	follow, err := c.flag("follow", true)
	if err != nil {
		return err
	}
	since, err := a.eventsFrom(c)
	if err != nil {
		return err
	}
	of, err := a.eventFilter(c)
	if err != nil {
		return err
	}
	out := newPipe(c, "text/event-stream")
	defer out.stop()
	send := func(e shoal.Event) error {
		if !access.SeesEvent(c.by, e) {
			return nil
		}
		if wanted, err := of(e); err != nil || !wanted {
			return err
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return out.write(fmt.Appendf(nil, "id: %d\ndata: %s\n\n", e.Rev, data))
	}
	if !follow {
		err = a.storedEvents(c.ctx, since, send)
		if err != nil {
			return out.failed(err)
		}
		return out.write(nil)
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	defer c.watch(ctx, cancel, func() error { return out.write([]byte(": still here\n\n")) })()
	for e, err := range a.cfg.Store.Watch(ctx, since) {
		if err == nil {
			err = send(e)
		}
		if err != nil {
			return out.failed(err)
		}
	}
	return out.failed(ended(context.Cause(ctx)))
}

// eventFilter reports which events the caller wants: those of one job, or of jobs with a label, or all.
func (a *API) eventFilter(c *call) (func(shoal.Event) (bool, error), error) {
	job := c.query("job")
	number, err := strconv.ParseInt(job, 10, 64)
	if job != "" && (err != nil || number <= 0) {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read job=%q", job).WithHint("it is a job's number")
	}
	label, err := store.ParseLabel(c.query("label"))
	if err != nil {
		return nil, err
	}
	return func(e shoal.Event) (bool, error) {
		if job == "" && label.Key == "" {
			return true, nil
		}
		if e.Kind != shoal.ObjectJob {
			return false, nil
		}
		first, last, several := strings.Cut(e.Name, "-") // one event can be about jobs in a row
		if !several {
			last = first
		}
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		if err1 != nil || err2 != nil || job != "" && (number < from || number > to) {
			return false, nil
		}
		if label.Key == "" {
			return true, nil
		}
		found := false
		err := a.cfg.Store.View(c.ctx, func(tx *store.Tx) (err error) {
			found, err = tx.HasLabel(label, shoal.JobID(first), shoal.JobID(last))
			return err
		})
		return found, err
	}, nil
}

// storedEvents hands over the events there are when it begins.
func (a *API) storedEvents(ctx context.Context, since shoal.Rev, send func(shoal.Event) error) error {
	end := a.cfg.Store.Rev()
	for since < end {
		var batch []shoal.Event
		err := a.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
			batch, err = tx.Events(since, eventBatch)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range batch {
			if e.Rev > end {
				return nil
			}
			if err := send(e); err != nil {
				return err
			}
			since = e.Rev
		}
		if len(batch) < eventBatch {
			return nil
		}
	}
	return nil
}

// watch ends a stream with cancel when its caller may no longer ask, or when one of also fails. The
// function it returns ends the watch and waits for its end.
func (c *call) watch(ctx context.Context, cancel context.CancelCauseFunc, also ...func() error) (stop func()) {
	done := make(chan struct{})
	ctx, end := context.WithCancel(ctx)
	go func() {
		defer close(done)
		beat := time.NewTicker(beatEvery)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
			}
			by, err := c.ask(c.req)
			kind := shoal.KindOf(err)
			if err == nil && (by.User != c.by.User || by.Rights() != c.by.Rights()) || kind == shoal.KindUnauthenticated || kind == shoal.KindDenied {
				cancel(shoal.Errorf(shoal.KindUnauthenticated, "the caller's rights have changed"))
				return
			}
			for _, f := range also {
				if err := f(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return func() { end(); <-done }
}
