package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Config is what a Provider needs.
type Config struct {
	Client       kubernetes.Interface
	Eyes         kubernetes.Interface // what is looked at and tried, which then does not wait behind a thousand changes; nil: Client
	Namespaces   []string             // that pools may use; the first is the default
	Installation string               // the tag of all that is made
}

// Provider makes machines that are pods. It implements provider.Provider and provider.Notifier, and keeps nothing: what there is, is in the
// cluster.
type Provider struct {
	cfg     Config
	changed chan struct{}
	strays  atomic.Bool // there may be pods without our labels

	healing sync.Mutex // guards healed
	healed  time.Time
}

// New makes a provider.
func New(cfg Config) *Provider {
	if cfg.Eyes == nil {
		cfg.Eyes = cfg.Client
	}
	return &Provider{cfg: cfg, changed: make(chan struct{}, 1)}
}

// Capabilities says that pods cannot be stopped and kept, and that machines have no control group per user: a pod's are not its own to
// divide, so people on one machine share its processors as their processes do.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{Mounts: provider.MountsByProvider, Parallel: 20}
}

// Changed tells when Observe would show something else.
func (p *Provider) Changed() <-chan struct{} { return p.changed }

// Create makes the machine's secret, its pool's disruption budget, and its pod, in this order, so that a crash between them leaves nothing
// that a repetition does not find or Delete does not remove.
func (p *Provider) Create(ctx context.Context, s provider.MachineSpec) error {
	in, pod, err := p.plan(s)
	if err != nil {
		return err
	}
	pods := p.cfg.Client.CoreV1().Pods(in.Namespace)
	if there, err := pods.Get(ctx, pod.Name, metav1.GetOptions{}); err == nil {
		return same(there, pod)
	} else if !apierrors.IsNotFound(err) {
		return typed(err, "look for pod "+pod.Name)
	}
	secret, err := p.putSecret(ctx, s, in)
	if err != nil {
		return err
	}
	if in.budget() {
		if err := p.makeBudget(ctx, s.Pool, in.Namespace); err != nil {
			return err
		}
	}
	made, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		there, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return typed(err, "look for pod "+pod.Name)
		}
		made = there
		if err := same(there, pod); err != nil {
			return err
		}
	case err != nil:
		e := typed(err, "make pod "+pod.Name)
		if apierrors.IsNotFound(err) { // the namespace is not there, or is going
			return provider.Errorf(provider.Invalid, "%w", e)
		}
		return e
	}
	return p.adopt(ctx, secret, made)
}

func (p *Provider) makeBudget(ctx context.Context, pool shoal.PoolName, ns string) error {
	_, err := p.cfg.Client.PolicyV1().PodDisruptionBudgets(ns).Create(ctx, p.budget(pool, ns), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return typed(err, "make the disruption budget of pool "+string(pool))
}

// plan reads a machine's settings and describes its pod.
func (p *Provider) plan(s provider.MachineSpec) (settings, *corev1.Pod, error) {
	if s.ID == "" || s.Token == "" {
		return settings{}, nil, provider.Errorf(provider.Invalid, "a machine needs an id and a token")
	}
	if s.OS != "" && s.OS != "linux" {
		return settings{}, nil, provider.Errorf(provider.Invalid, "pods of this provider run Linux, not %s", s.OS)
	}
	if s.Image == "" || s.Image == "host" {
		return settings{}, nil, provider.Errorf(provider.Invalid, "a pod cannot be made of image %q: name one that nodes can pull, such as those that images/build makes", s.Image)
	}
	in, err := p.read(s.Config)
	if err != nil {
		return in, nil, err
	}
	pod, err := p.pod(s, in)
	return in, pod, err
}

// same says whether the pod that is there is the one that was asked for.
func same(there, wanted *corev1.Pod) error {
	switch {
	case there.DeletionTimestamp != nil:
		return provider.Errorf(provider.Transient, "pod %s of a former machine is being deleted", there.Name)
	case there.Annotations[noteToken] != wanted.Annotations[noteToken] || there.Labels[labelInstallation] != wanted.Labels[labelInstallation]:
		return provider.Errorf(provider.Invalid, "there is a pod %s in namespace %s that was not made for this machine", there.Name, there.Namespace)
	}
	return nil
}

func (p *Provider) putSecret(ctx context.Context, s provider.MachineSpec, in settings) (*corev1.Secret, error) {
	want, err := p.secret(s, in)
	if err != nil {
		return nil, err
	}
	secrets := p.cfg.Client.CoreV1().Secrets(in.Namespace)
	made, err := secrets.Create(ctx, want, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return made, typed(err, "make secret "+want.Name)
	}
	there, err := secrets.Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return nil, typed(err, "read secret "+want.Name)
	}
	if there.Labels[labelInstallation] != p.cfg.Installation {
		return nil, provider.Errorf(provider.Invalid, "there is a secret %s in namespace %s that is not this installation's", want.Name, in.Namespace)
	}
	if bytes.Equal(there.Data[joinFile], want.Data[joinFile]) {
		return there, nil
	}
	there.Data = want.Data
	there, err = secrets.Update(ctx, there, metav1.UpdateOptions{})
	return there, typed(err, "change secret "+want.Name)
}

// adopt makes the secret go with its pod, whoever deletes that.
func (p *Provider) adopt(ctx context.Context, secret *corev1.Secret, pod *corev1.Pod) error {
	secrets := p.cfg.Client.CoreV1().Secrets(pod.Namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if slices.ContainsFunc(secret.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == pod.UID }) {
			return nil
		}
		secret = secret.DeepCopy()
		secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
		_, err := secrets.Update(ctx, secret, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) { // somebody, or another call, has changed it
			if fresh, e := secrets.Get(ctx, secret.Name, metav1.GetOptions{}); e == nil {
				secret = fresh
			}
		}
		return err
	})
	if apierrors.IsNotFound(err) { // deleted meanwhile
		return nil
	}
	return typed(err, "change secret "+secret.Name)
}

// Start finds the machine running, since pods cannot be stopped.
func (p *Provider) Start(ctx context.Context, s provider.MachineSpec) error {
	pod, err := p.find(ctx, s.ID)
	if err != nil {
		return err
	}
	if pod == nil {
		return provider.Errorf(provider.NotFound, "there is no pod %s", name(s.ID))
	}
	return nil
}

// Stop refuses.
func (p *Provider) Stop(context.Context, shoal.MachineID) error {
	return provider.Errorf(provider.Invalid, "a pod cannot be stopped and kept")
}

// find looks for a machine in all namespaces.
func (p *Provider) find(ctx context.Context, id shoal.MachineID) (*corev1.Pod, error) {
	for _, ns := range p.cfg.Namespaces {
		pod, err := p.cfg.Client.CoreV1().Pods(ns).Get(ctx, name(id), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, typed(err, "look for pod "+name(id))
		}
		if pod.Labels[labelInstallation] == p.cfg.Installation {
			return pod, nil
		}
	}
	return nil, nil
}

// Delete deletes the pod, and the secret of one that was never made. Once the pod is gone so is its secret.
func (p *Provider) Delete(ctx context.Context, id shoal.MachineID) error {
	for _, ns := range p.cfg.Namespaces {
		pods, secrets := p.cfg.Client.CoreV1().Pods(ns), p.cfg.Client.CoreV1().Secrets(ns)
		pod, err := pods.Get(ctx, name(id), metav1.GetOptions{})
		switch {
		case err != nil || pod.Labels[labelInstallation] != p.cfg.Installation:
		case pod.DeletionTimestamp == nil:
			err = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		default:
			if err := p.bury(ctx, pod); err != nil {
				return err
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return typed(err, "delete pod "+name(id))
		}
		secret, err := secrets.Get(ctx, name(id), metav1.GetOptions{})
		if err == nil && secret.Labels[labelInstallation] == p.cfg.Installation {
			err = secrets.Delete(ctx, secret.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return typed(err, "delete secret "+name(id))
		}
	}
	return nil
}

// Check lets the API server try a pool's machine without making it: quotas, policies and settings speak up.
func (p *Provider) Check(ctx context.Context, s provider.MachineSpec) error {
	if s.ID == "" {
		s.ID, s.Token = "m-check", "check"
	}
	in, pod, err := p.plan(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, m := range pod.Spec.Volumes {
		if c := m.PersistentVolumeClaim; c != nil {
			if _, err := p.cfg.Eyes.CoreV1().PersistentVolumeClaims(in.Namespace).Get(ctx, c.ClaimName, metav1.GetOptions{}); apierrors.IsNotFound(err) {
				return provider.Errorf(provider.Invalid, "there is no claim %q in namespace %s", c.ClaimName, in.Namespace)
			}
		}
	}
	_, err = p.cfg.Eyes.CoreV1().Pods(in.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return typed(err, fmt.Sprintf("make pods of this pool in namespace %s", in.Namespace))
}
