package activity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/owner"
)

// The servers of notebooks that users start themselves are asked which of their kernels compute, and when each did last.
// Where there is no answer, or none lately, a kernel is in use for as long as it is there.
const (
	kernelsEvery = time.Minute
	mostServers  = 32
	kernelsWait  = 5 * time.Second
	kernelsWorth = 3 * time.Minute // an answer is believed for so long
	maxKernels   = 1 << 20         // bytes of an answer
)

// kernelUse is what a server said of a kernel.
type kernelUse struct {
	asked time.Time
	waits bool      // it computes nothing
	last  time.Time // when it last did, by the server's clock
}

// notebook is a server with where it wrote how to reach it.
type notebook struct {
	pid, uid int
	dir      string
}

// connectionFile is the path by which a kernel is reached; empty: it has none that is known. Its name holds the kernel's.
func connectionFile(p *proc) string {
	f := strings.Fields(p.args)
	for i, a := range f {
		if a == "-f" && i+1 < len(f) && filepath.IsAbs(f[i+1]) {
			return f[i+1]
		}
	}
	return ""
}

// kernelID is a kernel's name, as its server lists it.
func kernelID(p *proc) string {
	id, ok := strings.CutPrefix(filepath.Base(connectionFile(p)), "kernel-")
	id, json := strings.CutSuffix(id, ".json")
	if !ok || !json {
		return ""
	}
	return id
}

// markKernels tells judge which kernels only wait, and has their servers asked again when that is due. The caller holds the lock.
func (w *Watcher) markKernels(procs []proc, now time.Time) {
	byPID := make(map[int]*proc, len(procs))
	for i := range procs {
		byPID[procs[i].pid] = &procs[i]
	}
	servers := map[notebook]bool{}
	for i := range procs {
		p := &procs[i]
		id := kernelID(p)
		server := byPID[p.ppid]
		if id == "" || !kernel(p) || server == nil || server.uid != p.uid || !notebookServer(server) || strings.Contains(server.args, "jupyterhub-singleuser") {
			continue
		}
		if len(servers) < mostServers {
			servers[notebook{server.pid, p.uid, filepath.Dir(connectionFile(p))}] = true
		}
		if u, ok := w.kernels[id]; ok && now.Sub(u.asked) < kernelsWorth {
			p.waits, p.last = u.waits, u.last
		}
	}
	if len(servers) == 0 || w.asking || now.Sub(w.asked) < w.cfg.kernelsEvery {
		return
	}
	w.asking, w.asked = true, now
	go w.askKernels(servers)
}

// askKernels asks servers, one after the other.
func (w *Watcher) askKernels(servers map[notebook]bool) {
	all := map[string]kernelUse{}
	for n := range servers {
		began := time.Now()
		told, err := n.ask()
		if err != nil {
			continue // what is not known is in use
		}
		for _, k := range told {
			all[k.ID] = kernelUse{asked: began, waits: k.State == "idle", last: k.Last}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kernels, w.asking = all, false
}

// told is a kernel in a server's answer.
type told struct {
	ID    string    `json:"id"`
	State string    `json:"execution_state"`
	Last  time.Time `json:"last_activity"`
}

// ask asks a server for its kernels, with what it wrote for its user's own programs. The address is looked at before: it is
// this machine's, and hers.
func (n notebook) ask() ([]told, error) {
	ctx, cancel := context.WithTimeout(context.Background(), kernelsWait)
	defer cancel()
	at, err := n.reach()
	if err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port)
	if s, err := owner.Listener(addr); err != nil || s.UID != n.uid {
		return nil, fmt.Errorf("port %d is not that of uid %d: %w", at.Port, n.uid, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+strings.TrimSuffix(at.BaseURL, "/")+"/api/kernels?no_track_activity=1", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "token "+at.Token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server says %s", resp.Status)
	}
	var all []told
	return all, json.NewDecoder(io.LimitReader(resp.Body, maxKernels)).Decode(&all)
}

// access is what a server writes of itself.
type access struct {
	BaseURL string `json:"base_url"`
	Token   string `json:"token"`
	Port    uint16 `json:"port"`
	PID     int    `json:"pid"`
	Secure  bool   `json:"secure"`
}

// reach reads how a server is reached, with its user's rights: whatever she puts in the way is hers to read.
func (n notebook) reach() (at access, err error) {
	done := make(chan struct{})
	go func() { // a thread of its own, which ends with it
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setfsuid(n.uid); err != nil {
			return
		}
		for _, name := range []string{"jpserver", "nbserver"} {
			if at, err = n.read(filepath.Join(n.dir, fmt.Sprintf("%s-%d.json", name, n.pid))); err == nil {
				return
			}
		}
	}()
	<-done
	return at, err
}

func (n notebook) read(path string) (access, error) {
	var at access
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return at, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return at, errors.Join(err, fmt.Errorf("%s is no file", path))
	}
	if err := json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&at); err != nil {
		return at, err
	}
	if at.PID != n.pid || at.Secure || !strings.HasPrefix(at.BaseURL, "/") {
		return at, fmt.Errorf("%s is not of process %d, or leads elsewhere", path, n.pid)
	}
	return at, nil
}
