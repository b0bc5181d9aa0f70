package kube

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
)

// Fake is the label of nodes that do not exist, on which kwok plays pods.
const Fake = "kwok.x-k8s.io/node"

// StartFakes adds nodes that do not exist, with room for a hundred pods each. Only pods that tolerate their taint, Fake, come there.
func (c *Cluster) StartFakes(ctx context.Context, nodes int) error {
	for i := range nodes {
		node := fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"fake-%[1]d","labels":{%[2]q:"fake","kubernetes.io/hostname":"fake-%[1]d"},"annotations":{%[2]q:"fake"}},
"spec":{"taints":[{"key":%[2]q,"value":"fake","effect":"NoSchedule"}]},
"status":{"capacity":{"cpu":"1k","memory":"1Ti","pods":"100"},"allocatable":{"cpu":"1k","memory":"1Ti","pods":"100"}}}`, i, Fake)
		if _, err := c.Do(ctx, http.MethodPost, "/api/v1/nodes", "application/json", []byte(node)); err != nil {
			return err
		}
	}
	config, err := c.Admin()
	if err != nil {
		return err
	}
	return c.launch("kwok", exec.Command(c.programs.kwok(), "--kubeconfig="+config, "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector="+Fake+"=fake",
		"--cidr=10.98.0.1/16", "--node-ip="+Host, "--node-lease-duration-seconds=40", "--config="+c.programs.stages()))
}
