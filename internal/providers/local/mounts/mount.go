package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/shares"
)

// mountAnew mounts a unit as a new generation, and lets the old one go. Its lock is held.
func (s *Set) mountAnew(ctx context.Context, u *unit) (string, error) {
	s.mu.Lock()
	old, rotate := u.rec, u.renew
	s.mu.Unlock()
	gen := old.Gen + 1
	dir := s.dir(u, gen)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	rec := record{Share: u.share, Sub: u.sub, UID: u.uid, GID: u.gid, Gen: gen, Read: time.Now()}
	err := s.mountAt(ctx, u, &rec, old, dir)
	if err != nil {
		_ = os.Remove(dir) // if something is mounted there after all, it stays
		return "", err
	}
	s.mu.Lock()
	u.rec, u.renew = rec, false
	s.mu.Unlock()
	if err := s.save(u); err != nil {
		return "", err
	}
	s.cfg.Log.Info("a share is mounted", "share", u.share.Name, "by", rec.Client, "generation", gen, "below", u.sub)
	s.retire(ctx, u, old)
	if !rotate {
		s.endClient(old) // it did not answer
	}
	return dir, nil
}

// retire lets go a generation whose place another took. A client in user space ends with the last who has it.
func (s *Set) retire(ctx context.Context, u *unit, old record) {
	if old.Gen == 0 {
		return
	}
	dir := s.dir(u, old.Gen)
	if startTime(old.PID) == old.Start && old.PID != 0 {
		written(ctx, filepath.Join(s.cfg.Dir, u.key))
	}
	if table, err := mountTable(0); err == nil {
		if _, ok := table[dir]; ok {
			if err := s.release(context.WithoutCancel(ctx), dir); err != nil {
				s.cfg.Log.Warn("a former mount of a share cannot be let go", "share", u.share.Name, "error", err)
			}
		}
	}
	_ = os.Remove(dir)
}

// mountAt lets the client mount.
func (s *Set) mountAt(ctx context.Context, u *unit, rec *record, old record, dir string) error {
	c, err := s.choose(ctx, u.src)
	if err != nil {
		return shareErrorAs(u.share, err)
	}
	rec.Client = c
	l, err := s.login(ctx, u)
	if err != nil {
		return err
	}
	switch c {
	case kernelNFS:
		err = s.mountNFS(ctx, u, dir)
	case kernelSMB:
		err = s.mountSMB(ctx, u, l, dir)
	case sshfs:
		err = s.mountSSH(ctx, u, l, rec, dir)
	case rclone:
		err = s.mountRclone(ctx, u, l, rec, old, dir)
	}
	if err == nil {
		if err = s.child(ctx, task{Do: "probe", Dir: dir}); err == nil {
			return nil
		}
		err = s.unmade(ctx, u, *rec, dir, err)
	}
	if rec.PID != 0 && old.PID == 0 {
		_ = os.Remove(filepath.Join(s.cfg.Run, u.key+".key"))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("its server does not answer within %s", shoal.Duration(s.cfg.Timeout))
	}
	text := l.scrub(err.Error())
	if errors.Is(err, errDenied) && u.share.Credentials != nil {
		return shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): the secret %q that it names is refused: %w", u.share.Name, u.share.Source, u.share.Credentials.Secret, denied(errors.New(text))).
			WithHint("set it again on the server's host: shoal secret set %s", u.share.Credentials.Secret)
	}
	return shareError(u.share, "%s", text)
}

// unmade undoes a mount that does not answer, and says why it does not: a client in user space may mount before it asks.
func (s *Set) unmade(ctx context.Context, u *unit, rec record, dir string, err error) error {
	if errors.Is(err, unix.ENOTCONN) {
		for range 100 { // it is about to end, with a word
			if startTime(rec.PID) != rec.Start {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	_ = s.release(ctx, dir)
	s.endClient(rec)
	if rec.PID != 0 {
		// What it says when it is ended is no reason.
		if said := clientError(filepath.Join(s.cfg.Dir, u.key, "log")); said != nil && (errors.Is(said, errDenied) || !errors.Is(err, context.DeadlineExceeded)) {
			return said
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("it was mounted, and does not answer: %w", err)
}

// shareErrorAs names the share in an error that says itself what to do.
func shareErrorAs(share shoal.Share, err error) error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): %w", share.Name, share.Source, err).WithHint("%s", shoal.HintOf(err))
}

// login fetches a unit's credentials.
func (s *Set) login(ctx context.Context, u *unit) (login, error) {
	c := u.share.Credentials
	if c == nil {
		return login{user: u.src.User}, nil
	}
	if s.cfg.Secret == nil {
		return login{}, shareError(u.share, "its credentials %q cannot be had: there is no secret store", c.Secret)
	}
	value, err := s.cfg.Secret(ctx, u.share.Name, c.Secret)
	if err != nil {
		return login{}, shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): its credentials cannot be had: %w", u.share.Name, u.share.Source, err).
			WithHint("set the secret on the server's host: shoal secret set %s", c.Secret)
	}
	l, err := readLogin(u.src, value)
	if err != nil {
		return login{}, shoal.Errorf(shoal.KindUnavailable, "cannot reach share %s (%s): the secret %q cannot be used: %w", u.share.Name, u.share.Source, c.Secret, err).
			WithHint("set it again on the server's host: shoal secret set %s", c.Secret)
	}
	if l.key != "" && u.src.Kind != shares.SFTP {
		return login{}, shareError(u.share, "its secret %q is a key for SSH", c.Secret)
	}
	return l, nil
}

// credentialFile writes a file that only root can read, on a tmpfs.
func (s *Set) credentialFile(name, text string) (string, error) {
	if err := os.MkdirAll(s.cfg.Run, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(s.cfg.Run, name)
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return file, os.Rename(file+".new", file)
}

// mountSSH starts sshfs. A key lies on a tmpfs while it runs, since it connects again after a pause; a password it keeps itself.
func (s *Set) mountSSH(ctx context.Context, u *unit, l login, rec *record, dir string) error {
	key := ""
	if l.key != "" {
		var err error
		if key, err = s.credentialFile(u.key+".key", l.key); err != nil {
			return err
		}
	}
	hosts, err := s.hostsFile(u)
	if err != nil {
		return err
	}
	in := ""
	if l.password != "" {
		in = l.password + "\n"
	}
	return s.start(ctx, u, rec, sshfsArgs(u, l, key, hosts, dir), in, dir)
}

// mountRclone starts rclone. Its configuration lies on a tmpfs until it is mounted.
func (s *Set) mountRclone(ctx context.Context, u *unit, l login, rec *record, old record, dir string) error {
	text, err := rcloneConfig(ctx, u, l)
	if err != nil {
		return err
	}
	file, err := s.credentialFile(u.key+".conf", text)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	// What a client that died had not written is written by the next. Two that live must not share a cache.
	rec.Cache = old.Cache
	if rec.Cache == "" || startTime(old.PID) == old.Start && old.PID != 0 {
		rec.Cache = fmt.Sprintf("cache-g%d", rec.Gen)
	}
	cache := filepath.Join(s.cfg.Dir, u.key, rec.Cache)
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	return s.start(ctx, u, rec, rcloneArgs(u, file, dir, cache), "", dir)
}

// start starts a client in a session and control group of its own, so that it outlives the server, and waits until it has mounted.
func (s *Set) start(ctx context.Context, u *unit, rec *record, args []string, in, dir string) error {
	t := task{Do: "run", Args: args}
	if s.cfg.Groups != nil {
		var err error
		if t.Groups, err = s.cfg.Groups(); err != nil {
			return err
		}
	}
	order, err := handOver(&t)
	if err != nil {
		return err
	}
	defer order.Close()
	input, err := inMemory("input", []byte(in))
	if err != nil {
		return err
	}
	defer input.Close()
	name := filepath.Join(s.cfg.Dir, u.key, "log")
	log, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if s.cfg.Self == "" {
		return errors.New("this program cannot mount network shares")
	}
	cmd := exec.Command(s.cfg.Self)
	cmd.Args, cmd.Env, cmd.Dir = []string{childName}, environment(), "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, log, log
	cmd.ExtraFiles = []*os.File{order}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	rec.PID, rec.Start = cmd.Process.Pid, startTime(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(s.cfg.Timeout)
	for {
		if table, err := mountTable(0); err == nil && table[dir].fsType != "" {
			return nil
		}
		select {
		case <-ended:
			if err := clientError(name); err != nil {
				return err
			}
			return fmt.Errorf("%s ended without a word", args[0])
		case <-ctx.Done():
			s.endClient(*rec)
			return ctx.Err()
		case <-deadline:
			s.endClient(*rec)
			if err := clientError(name); errors.Is(err, errDenied) {
				return err
			}
			return context.DeadlineExceeded
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clientError is what a client said last.
func clientError(log string) error {
	b, _ := os.ReadFile(log)
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(b[max(len(b)-600, 0):]), "?")) {
		// rclone begins with the time and a word.
		if f := strings.SplitN(line, " ", 3); len(f) == 3 && len(f[0]) == 10 && f[0][4] == '/' {
			line = f[2]
			for _, word := range []string{"ERROR : ", "CRITICAL: ", "Failed to create file system for "} {
				line = strings.TrimPrefix(line, word)
			}
		}
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Warning: Permanently added") && line != "read: Connection reset by peer" {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "; ")
	if text == "" {
		return nil
	}
	err := errors.New(text)
	for _, word := range []string{"logon is invalid", "STATUS_LOGON_FAILURE", "Permission denied (", "account has been disabled", "Access Denied", "ACCESS_DENIED"} {
		if strings.Contains(text, word) {
			return denied(err)
		}
	}
	return err
}

// endClient ends a client whose mount is not there, or is not to be. One that waits for a dead server is killed.
func (s *Set) endClient(rec record) {
	if rec.PID <= 0 || rec.Start == 0 || startTime(rec.PID) != rec.Start {
		return
	}
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if startTime(rec.PID) != rec.Start {
		return
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 3000); n == 0 {
		_ = unix.Kill(-rec.PID, unix.SIGKILL) // its session's other processes too
	}
}
