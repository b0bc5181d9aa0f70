package activity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// How a user's processes are asked to end: as when a terminal goes, and more and more plainly.
const (
	askedAgain = 2 * time.Second
	forced     = 5 * time.Second
)

// End ends what a user has on the machine, if a fresh look finds that nothing of it has been in use for so long. What is
// of her tasks, web apps and desktops stays, and so does a connection by which she comes again meanwhile. With a negative time it
// is ended whether or not it is used. It returns once nothing is left, or with a reason why something is.
func (w *Watcher) End(ctx context.Context, user shoal.UserName, unused time.Duration) error {
	began := time.Now()
	visits := map[process]bool{{}: true} // what belongs to no connection
	for first := true; ; first = false {
		own, err := w.unused(user, unused, first && unused >= 0)
		if err != nil {
			return err
		}
		if first {
			for _, p := range own {
				visits[p.visit] = true
			}
		}
		own = slices.DeleteFunc(own, func(p *proc) bool { return !visits[p.visit] })
		if len(own) == 0 {
			return nil
		}
		for _, p := range own {
			term(p, time.Since(began))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot end what %s has on the machine: %w", user, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// unused lists what is a user's own. The first time it is an error if she uses it.
func (w *Watcher) unused(user shoal.UserName, unused time.Duration, first bool) ([]*proc, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	_, found, err := w.find(now)
	if err != nil {
		return nil, err
	}
	input := w.input()
	for uid, f := range found {
		if name, _ := w.cfg.Name(uid); name != user {
			continue
		}
		what, since := w.judgeUse(uid, f, input[uid], now)
		switch {
		case first && what != "":
			return nil, fmt.Errorf("%s has something in use: %s", user, what)
		case first && time.Duration(since) < unused:
			return nil, fmt.Errorf("%s has used it %s ago", user, since)
		}
		return f.own, nil
	}
	return nil, nil
}

// term asks a process to end. Its number is not another's by then: that is looked at while it cannot be given away.
func term(p *proc, after time.Duration) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // it has gone
	}
	defer unix.Close(fd)
	now, ok := parseStat(slurp(fmt.Sprintf("/proc/%d/stat", p.pid), make([]byte, 4096)))
	if !ok || now.born != p.born {
		return
	}
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGCONT}
	switch {
	case after >= forced:
		signals = []syscall.Signal{syscall.SIGKILL}
	case after >= askedAgain:
		signals = []syscall.Signal{syscall.SIGTERM}
	}
	for _, s := range signals {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
	}
}
