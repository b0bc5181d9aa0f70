// Package clock notices when the wall clock is set, and moves what is on record along with it.
//
// Deadlines, idle times and leases are on record as times of the wall clock, so that they outlive the server, but they are promises about
// time that passes: two hours' notice, half an hour with nobody there. When the clock is set, by hand, by NTP after a boot, or because
// the host was suspended, all of them become other promises at once. So whoever ends things asks Keep first. It compares the wall clock with one
// that nobody can set, and by as much as the two have come apart it moves what has begun and not ended: whatever was to end in two hours
// still ends in two hours, and the bill counts the time that passed. Schedules, which mean the wall clock, stay. Tasks are moved by package
// batch, which keeps them in memory: it asks by how much all was moved.
package clock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	// step is how far the clock must be set at once to be noticed: what keeps clocks right by and by changes them by
	// milliseconds between two looks.
	step = 5 * time.Second
	// restartStep is the same from one process to the next, between which a clock may have been slewed for days.
	restartStep = time.Minute
	// setting is the name of the mark on record.
	setting = "clock"
	// movedSetting is by how much all was moved since there is a record.
	movedSetting = "clock.moved"
)

// Config is what a Keeper needs. Only Store must be set.
type Config struct {
	Store *store.DB
	Log   *slog.Logger
	// Wall is the clock that may be set. Nil: the system's.
	Wall func() time.Time
	// Boot names the host's boot, and says for how long it has run since then, suspensions not counted. Nil: what was before this
	// process is taken as it is on record.
	Boot func() (id string, up time.Duration, err error)
}

// Keeper notices. Its methods may be called from any goroutine.
type Keeper struct {
	cfg   Config
	began time.Time // by both clocks

	mu      sync.Mutex // held while what is on record is moved, so that nobody decides meanwhile
	offset  time.Duration
	moved   time.Duration
	started bool
}

// New makes a Keeper.
func New(cfg Config) *Keeper {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.Boot != nil {
		if _, _, err := cfg.Boot(); err != nil {
			cfg.Log.Warn("it will not be noticed if the clock is set while no server runs", "error", err)
			cfg.Boot = nil
		}
	}
	k := &Keeper{cfg: cfg, began: time.Now()}
	k.offset = k.apart()
	return k
}

// apart is how far the wall clock has come from one that nobody can set, since the Keeper began.
func (k *Keeper) apart() time.Duration {
	return k.cfg.Wall().Round(0).Sub(k.began.Round(0)) - time.Since(k.began)
}

// Keep returns once what is on record fits the wall clock. After an error nothing may be ended by it.
func (k *Keeper) Keep(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keep(ctx)
}

// Moved is Keep for who moves times of its own, and says by how much all else has been moved since there is a record.
func (k *Keeper) Moved(ctx context.Context) (time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.keep(ctx)
	return k.moved, err
}

// keep is Keep. k.mu is held.
func (k *Keeper) keep(ctx context.Context) error {
	apart := k.apart()
	by := apart - k.offset
	if k.started && by.Abs() < step {
		k.offset = apart
		return nil
	}
	moved, total := false, time.Duration(0)
	err := k.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		now, was, err := k.marks(tx)
		if err != nil {
			return err
		}
		least := step
		if !k.started && now.Boot != "" && now.Boot == was.Boot { // since an earlier process left it
			by, least = now.Offset-was.Offset, restartStep
		}
		if total, err = tx.DurationSetting(movedSetting); err != nil {
			return err
		}
		if moved = by.Abs() >= least; moved {
			total += by
			err = errors.Join(move(tx, by, k.cfg.Wall().UTC().Round(0)), tx.SetDurationSetting(movedSetting, total))
		}
		if err != nil || now.Boot == "" {
			return err
		}
		text, err := json.Marshal(now)
		if err != nil {
			return err
		}
		return tx.SetSetting(setting, string(text))
	})
	if err != nil {
		return fmt.Errorf("cannot have what is on record fit the clock: %w", err)
	}
	k.offset, k.moved, k.started = apart, total, true
	if moved {
		k.cfg.Log.Warn(sentence(by))
	}
	return nil
}

// mark is how the clock stood to the time since a boot. Processes leave it for later ones on the same host.
type mark struct {
	Boot   string        `json:"boot"`   // empty: it is not known which
	Offset time.Duration `json:"offset"` // the wall clock less the time since the boot, nanoseconds since 1970
}

// marks are that of now and that on record.
func (k *Keeper) marks(tx *store.Tx) (now, was mark, err error) {
	if k.cfg.Boot == nil {
		return now, was, nil
	}
	id, up, err := k.cfg.Boot()
	if err != nil {
		return now, was, err
	}
	now = mark{id, time.Duration(k.cfg.Wall().UnixNano()) - up}
	text, err := tx.Setting(setting)
	if err == nil && text != "" && json.Unmarshal([]byte(text), &was) != nil {
		was = mark{} // of nobody that is known
	}
	return now, was, err
}

func sentence(by time.Duration) string {
	how := "forward"
	if by < 0 {
		how = "back"
	}
	return fmt.Sprintf("the server's clock was put %s by %s, or the server stood still: what was to end after a time still ends after that time, so other hours are told now",
		how, shoal.Duration(by.Abs().Round(time.Second)))
}

// Linux is this host's boot.
func Linux() (id string, up time.Duration, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0, err
	}
	var t unix.Timespec
	err = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return strings.TrimSpace(string(text)), time.Duration(t.Nano()), err
}
