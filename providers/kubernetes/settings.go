package main

import (
	"bytes"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shoal-pool/shoal/provider"
)

// settings are a pool's providerConfig. settings.json describes them.
type settings struct {
	Namespace         string              `json:"namespace"`
	NodeSelector      map[string]string   `json:"nodeSelector"`
	Tolerations       []corev1.Toleration `json:"tolerations"`
	PriorityClassName string              `json:"priorityClassName"`
	RuntimeClassName  string              `json:"runtimeClassName"`
	SpreadOver        string              `json:"spreadOver"` // a label of nodes
	GPUResource       string              `json:"gpuResource"`
	Requests          map[string]string   `json:"requests"` // less than the machine's size, to share nodes
	EphemeralStorage  string              `json:"ephemeralStorage"`
	ImagePullPolicy   corev1.PullPolicy   `json:"imagePullPolicy"`
	ImagePullSecrets  []string            `json:"imagePullSecrets"`
	DisruptionBudget  *bool               `json:"disruptionBudget"`
	requests          corev1.ResourceList
	ephemeral         resource.Quantity
}

// read reads a pool's settings, of which it has to understand all.
func (p *Provider) read(config map[string]any) (settings, error) {
	s := settings{GPUResource: "nvidia.com/gpu"}
	b, err := json.Marshal(config)
	if err != nil {
		return s, provider.Errorf(provider.Invalid, "cannot read providerConfig: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, provider.Errorf(provider.Invalid, "cannot read providerConfig: %w; `shoal provider schema` shows what can be in it", err)
	}
	if s.Namespace == "" {
		s.Namespace = p.cfg.Namespaces[0]
	}
	if !slices.Contains(p.cfg.Namespaces, s.Namespace) {
		return s, provider.Errorf(provider.Denied, "pools cannot be in namespace %q: this server may use %v; its administrator adds to them with %s", s.Namespace, p.cfg.Namespaces, envNamespaces)
	}
	s.requests = corev1.ResourceList{}
	for name, text := range s.Requests {
		if name != "cpu" && name != "memory" {
			return s, provider.Errorf(provider.Invalid, "providerConfig.requests has %q: it can have cpu and memory", name)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Sign() <= 0 {
			return s, provider.Errorf(provider.Invalid, "providerConfig.requests.%s is %q: write a quantity of Kubernetes such as 500m or 2Gi", name, text)
		}
		s.requests[corev1.ResourceName(name)] = q
	}
	if s.EphemeralStorage != "" {
		if s.ephemeral, err = resource.ParseQuantity(s.EphemeralStorage); err != nil || s.ephemeral.Sign() <= 0 {
			return s, provider.Errorf(provider.Invalid, "providerConfig.ephemeralStorage is %q: write a quantity such as 10Gi", s.EphemeralStorage)
		}
	}
	if bad := validation.IsQualifiedName(s.GPUResource); len(bad) > 0 {
		return s, provider.Errorf(provider.Invalid, "providerConfig.gpuResource is %q: %s", s.GPUResource, bad[0])
	}
	return s, nil
}

func (s settings) budget() bool { return s.DisruptionBudget == nil || *s.DisruptionBudget }
