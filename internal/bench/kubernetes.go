package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// kubernetesRows has the provider for Kubernetes measured by a test of its own, since it is a module of its own and its cluster runs in
// namespaces.
func kubernetesRows(ctx context.Context, b *bench) error {
	bin, err := filepath.Abs(b.bin)
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, "kubernetes.json")
	cmd := exec.CommandContext(ctx, "go", "test", "-C", "providers/kubernetes", "-count=1", "-timeout=1h", "-run=^TestMeasure$", ".")
	cmd.Env = append(os.Environ(), "SHOAL_BIN="+bin, "SHOAL_KUBE_MEASURE="+out, "SHOAL_KUBE_ROUNDS="+strconv.Itoa(b.rounds))
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, said[:min(len(said), 4000)]) // what failed comes first, and the servers' logs after it
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	var m struct {
		Ready, Pod []float64
		Pods       int
		Rate       float64
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	b.add(Row{Measure: "kubernetes: from the request for a machine until it is ready", Unit: "s", Ours: m.Ready, Peer: m.Pod, PeerIs: "a bare pod of the same image, until it runs"}.judge(atMost("difference", 1)))
	b.add(Row{Measure: fmt.Sprintf("kubernetes: requests to the API server with %d pods at rest", m.Pods), Unit: "per second", Ours: []float64{m.Rate},
		Note: "from its audit log, over 3 minutes; pods played by kwok, agents by the test"}.judge(atMost("ours", 2)))
	return nil
}
