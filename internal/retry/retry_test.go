package retry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
)

func TestTheSameTroubleIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tries := retry.New(slog.New(slog.NewTextHandler(&out, nil)), "broker")
	full := shoal.Errorf(shoal.KindUnavailable, "the disk is full")
	for _, err := range []error{full, full, errors.New("something else"), full, nil, full} {
		if ok := tries.Do(t.Context(), "seat the line", func(context.Context) error { return err }); ok != (err == nil) {
			t.Errorf("%v: %v", err, ok)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	tries.Done(ended, "end sessions", ended.Err())
	if n := strings.Count(out.String(), "broker: cannot seat the line, trying again"); n != 4 || strings.Contains(out.String(), "end sessions") {
		t.Errorf("logged %d times, want 4:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "level=WARN") || !strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("the levels are not those of the errors' kinds:\n%s", out.String())
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := retry.Sleep(t.Context(), time.Hour); err != nil || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := retry.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour+time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
