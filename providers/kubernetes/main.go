// Command shoal-provider-kubernetes makes machines that are pods. A server is given it with `shoal serve --provider`, and finds the cluster as
// kubectl does: by KUBECONFIG, or inside a pod by the pod's own account. docs/guides/kubernetes.md tells the rest.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/shoal-pool/shoal/provider/wire"
)

//go:embed settings.json
var schema []byte

// envNamespaces lists the namespaces that pools may use, with commas between them; the first is that of pools which name none.
const envNamespaces = "SHOAL_KUBERNETES_NAMESPACES"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p, err := connect()
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-provider-kubernetes:", err)
		os.Exit(1)
	}
	if len(os.Args) == 2 && wire.Mode(os.Args[1]) == wire.Session {
		go p.watch(ctx)
	}
	os.Exit(wire.Main(ctx, wire.Program{Provider: p, Mode: wire.Session, Settings: schema, Check: p.Check}))
}

// requestTime bounds a request to the API server.
const requestTime = time.Minute

// connect finds the cluster.
func connect() (*Provider, error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("cannot find a cluster: %w; set KUBECONFIG for the server, or run it in a pod", err)
	}
	config.UserAgent = "shoal-provider-kubernetes"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.QPS, config.Burst = 100, 200 // of each client
	config.Timeout = requestTime
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	eyes, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	namespaces := strings.FieldsFunc(os.Getenv(envNamespaces), func(r rune) bool { return r == ',' || r == ' ' })
	if len(namespaces) == 0 {
		own, _, err := loader.Namespace()
		if err != nil {
			return nil, err
		}
		namespaces = []string{own}
	}
	return New(Config{Client: client, Eyes: eyes, Namespaces: namespaces, Installation: os.Getenv(wire.EnvInstallation)}), nil
}
