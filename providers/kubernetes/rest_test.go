package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
	"github.com/shoal-pool/shoal/provider"
)

// The counts of the normal test; `make prove` and `make bench` have a thousand pods.
const (
	restPods = 60
	restTime = 10 * time.Second
	restMost = 2 // requests per second
)

func (c *cluster) rest(t *testing.T) {
	pods, window := restPods, restTime
	if os.Getenv("SHOAL_PROVE") != "" {
		pods, window = 1000, 3*time.Minute
	}
	if rate := c.hold(t, pods, window); rate > restMost {
		t.Errorf("the API server was asked %.2f times a second", rate)
	}
}

// hold holds many machines, whose pods kwok plays and whose agents say that all is well, and counts what the API server is asked
// a second meanwhile, by its own audit log.
func (c *cluster) hold(t *testing.T, pods int, window time.Duration) float64 {
	if err := c.StartFakes(t.Context(), pods/100+1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", c.kubeconfig)
	t.Setenv(envNamespaces, "shoal")
	const door = kube.Host + ":7422"
	w, err := rig.New(t.Context(), binaries(t), filepath.Join(c.dir, "rest"), "--provider", "kubernetes", "--agent-listen", door)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.Dir, "serve.log"))
			t.Logf("%s", log)
		}
	}()
	ctx, end := context.WithCancel(t.Context())
	var agents sync.WaitGroup
	defer agents.Wait()
	defer end()
	agents.Go(func() { c.playAgents(ctx, t, door, &agents) })
	if err := w.Apply(t.Context(), 1, fmt.Sprintf(`---
kind: Pool
name: many
provider: kubernetes
image: localhost/nothing:1
uses: [batch]
machine: {cpus: 0.1, memory: 64MiB}
size: {min: %[1]d, max: %[1]d}
providerConfig:
  nodeSelector: {%[2]q: fake}
  tolerations: [{key: %[2]q, operator: Exists}]
`, pods, kube.Fake)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := w.Ready(t.Context(), "many", pods, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	making := c.requests(t, began, time.Now())
	t.Logf("%d machines were ready after %s, and %v", pods, time.Since(began).Round(time.Second), making)
	if making["create pods"] < pods {
		t.Errorf("the audit log does not have all requests: %v", making)
	}
	for limit := time.Now().Add(patience); time.Now().Before(limit); { // what the last of them has set going comes to its end
		if rate, _ := c.rate(t, 5*time.Second); rate <= restMost {
			break
		}
	}
	rate, asked := c.rate(t, window)
	t.Logf("%d pods at rest: %.3f requests per second in %s: %v", pods, rate, window, asked)
	return rate
}

// rate is how many requests there are a second, for so long from now on.
func (c *cluster) rate(t *testing.T, window time.Duration) (perSecond float64, asked map[string]int) {
	t.Helper()
	from := time.Now()
	time.Sleep(window)
	asked = c.requests(t, from, from.Add(window))
	total := 0
	for _, n := range asked {
		total += n
	}
	return float64(total) / window.Seconds(), asked
}

// requests are those of Shoal's account in a time, by verb and resource.
func (c *cluster) requests(t *testing.T, from, to time.Time) map[string]int {
	t.Helper()
	f, err := os.Open(c.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	asked := map[string]int{}
	for lines := json.NewDecoder(f); ; {
		var e struct {
			Stage, Verb              string
			User                     struct{ Username string }
			ObjectRef                struct{ Resource string }
			RequestReceivedTimestamp time.Time
		}
		err := lines.Decode(&e)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return asked
		}
		if err != nil {
			t.Fatal(err)
		}
		watch := e.Verb == "watch" && e.Stage == "ResponseStarted" // it may not have ended yet
		if e.User.Username == "system:serviceaccount:shoal:shoal" && (watch || e.Verb != "watch" && e.Stage == "ResponseComplete") &&
			e.RequestReceivedTimestamp.After(from) && e.RequestReceivedTimestamp.Before(to) {
			asked[e.Verb+" "+e.ObjectRef.Resource]++
		}
	}
}

// playAgents plays the agent of each machine that is made, from the secret that its pod would read.
func (c *cluster) playAgents(ctx context.Context, t *testing.T, door string, agents *sync.WaitGroup) {
	known := map[string]bool{}
	for ctx.Err() == nil {
		list, err := c.admin.CoreV1().Secrets("shoal").List(ctx, metav1.ListOptions{LabelSelector: labelPool + "=many"})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		for _, s := range list.Items {
			var join provider.Join
			if known[s.Name] || json.Unmarshal(s.Data[joinFile], &join) != nil {
				continue
			}
			known[s.Name] = true
			agents.Go(func() {
				if err := playAgent(ctx, door, join); err != nil && ctx.Err() == nil {
					t.Errorf("machine %s: %v", join.Machine, err)
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// playAgent joins and says that its machine is ready and empty, as long as ctx lasts or its machine is there.
func playAgent(ctx context.Context, door string, join provider.Join) error {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	token := ""
	ask := func(method, path string, body any) (*http.Response, error) {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, method, "https://"+door+path, bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		return client.Do(req)
	}
	resp, err := ask(http.MethodPost, "/agent/v1/join", api.AgentJoin{Machine: join.Machine, Token: join.Token, Epoch: join.Epoch, Version: "played",
		HostKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))})
	if err != nil {
		return err
	}
	var joined api.AgentJoined
	err = json.NewDecoder(resp.Body).Decode(&joined)
	resp.Body.Close()
	if err != nil || resp.StatusCode/100 != 2 {
		return fmt.Errorf("joining: %s, %w", resp.Status, err)
	}
	token = joined.Token
	stream, err := ask(http.MethodGet, "/agent/v1/stream", nil)
	if err != nil {
		return err
	}
	defer stream.Body.Close()
	var mu sync.Mutex
	var accounts shoal.Rev
	looked, news := "", make(chan struct{}, 1)
	go func() {
		for records := json.NewDecoder(stream.Body); ; {
			var r api.Record
			if records.Decode(&r) != nil {
				return
			}
			mu.Lock()
			if r.Accounts != nil {
				accounts = r.Accounts.Rev
			}
			if r.Look != "" {
				looked = r.Look
			}
			mu.Unlock()
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}()
	for told := false; ctx.Err() == nil; {
		mu.Lock()
		report := api.Report{Accounts: accounts, Looked: looked, Activity: &api.Activity{Users: []api.UserActivity{}}}
		mu.Unlock()
		if !told {
			report.Boot = &api.BootReport{Ready: true}
		}
		resp, err := ask(http.MethodPost, "/agent/v1/report", report)
		if err == nil {
			resp.Body.Close()
		}
		if err != nil || resp.StatusCode/100 == 5 { // a connection that was kept has ended, or the pod has no address yet
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		told = true
		if resp.StatusCode/100 == 4 { // its machine has gone
			return nil
		}
		select {
		case <-news:
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
		}
	}
	return nil
}
