package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

// eventBatch is how many events are read at once.
const eventBatch = 256

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
	if id := c.Req.Header.Get("Last-Event-ID"); id != "" {
		return parseEventID(id)
	}
	t, err := c.Instant("since")
	if err != nil || t.IsZero() {
		return 0, err
	}
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		since, err = tx.EventsFrom(t)
		return err
	})
	return since, err
}

func (a *API) events(c *call) error {
	follow, err := c.Flag("follow", true)
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
	out := rest.NewPipe(c, "text/event-stream")
	defer out.Stop()
	send := func(e shoal.Event) error {
		if !access.SeesEvent(c.By, e) {
			return nil
		}
		if wanted, err := of(e); err != nil || !wanted {
			return err
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return out.Write(fmt.Appendf(nil, "id: %d\ndata: %s\n\n", e.Rev, data))
	}
	if !follow {
		err = a.storedEvents(c.Ctx, since, send)
		if err != nil {
			return out.Failed(err)
		}
		return out.Write(nil)
	}
	ctx, cancel := context.WithCancelCause(c.Ctx)
	defer cancel(nil)
	defer c.Watch(ctx, cancel, func() error { return out.Write([]byte(": still here\n\n")) })()
	for e, err := range a.cfg.Store.Watch(ctx, since) {
		if err == nil {
			err = send(e)
		}
		if err != nil {
			return out.Failed(err)
		}
	}
	return out.Failed(rest.Ended(context.Cause(ctx)))
}

// eventFilter reports which events the caller wants: those of one job, or of jobs with a label, or all.
func (a *API) eventFilter(c *call) (func(shoal.Event) (bool, error), error) {
	job := c.Query("job")
	number, err := strconv.ParseInt(job, 10, 64)
	if job != "" && (err != nil || number <= 0) {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read job=%q", job).WithHint("it is a job's number")
	}
	label, err := store.ParseLabel(c.Query("label"))
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
		err := a.cfg.Store.View(c.Ctx, func(tx *store.Tx) (err error) {
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
