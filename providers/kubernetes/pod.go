package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Labels and annotations of what is ours.
const (
	prefix            = "shoal-pool.github.io/"
	labelManagedBy    = "app.kubernetes.io/managed-by"
	labelInstallation = prefix + "installation"
	labelPool         = prefix + "pool"
	labelMachine      = prefix + "machine"
	noteToken         = prefix + "token-hash" // tells one Create of a machine from another
	noteLabels        = prefix + "labels"     // as they are to be
	noteBudget        = prefix + "budget"     // its pool has one
	manager           = "shoal"
)

// capabilities are those of root in a machine, as on a local host: a container's usual ones and what sshd needs.
var capabilities = []corev1.Capability{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE",
	"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}

const (
	sshPort      = 22
	defaultGrace = 30 // seconds
	joinFile     = "join.json"
	runSize      = 64 << 20
)

// name is that of a machine's pod and of its secret.
func name(id shoal.MachineID) string { return "shoal-" + string(id) }

// budgetName is that of a pool's disruption budget. Two servers may have a pool of one name in one namespace.
func (p *Provider) budgetName(pool shoal.PoolName) string {
	return "shoal-" + string(pool) + "-" + hash(p.cfg.Installation)[:8]
}

func (p *Provider) labels(s provider.MachineSpec) map[string]string {
	return map[string]string{labelManagedBy: manager, labelInstallation: p.cfg.Installation, labelPool: string(s.Pool), labelMachine: string(s.ID)}
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// secret holds what the machine's agent needs to join.
func (p *Provider) secret(s provider.MachineSpec, in settings) (*corev1.Secret, error) {
	join, err := json.Marshal(s.Join)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name(s.ID), Namespace: in.Namespace, Labels: p.labels(s)},
		Data: map[string][]byte{joinFile: join}}, nil
}

// budget keeps whoever drains a node from ending what people do on it.
func (p *Provider) budget(pool shoal.PoolName, ns string) *policyv1.PodDisruptionBudget {
	labels := map[string]string{labelManagedBy: manager, labelInstallation: p.cfg.Installation, labelPool: string(pool)}
	none := intstr.FromInt32(0)
	return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: p.budgetName(pool), Namespace: ns, Labels: labels},
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &none, Selector: &metav1.LabelSelector{MatchLabels: labels}}}
}

// pod is the machine.
func (p *Provider) pod(s provider.MachineSpec, in settings) (*corev1.Pod, error) {
	grace := int64(defaultGrace)
	if s.Grace > 0 {
		grace = int64(s.Grace.Seconds()) + 1
	}
	no, escalate, root := false, s.Setuid, int64(0)
	limits := corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(s.Resources.CPUs), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(s.Resources.Memory), resource.BinarySI)}
	if s.Resources.GPUs > 0 {
		limits[corev1.ResourceName(in.GPUResource)] = *resource.NewQuantity(int64(s.Resources.GPUs), resource.DecimalSI)
	}
	if !in.ephemeral.IsZero() {
		limits[corev1.ResourceEphemeralStorage] = in.ephemeral
	}
	requests := limits.DeepCopy()
	for k, v := range in.requests {
		requests[k] = v
	}
	half, small, mode := resource.NewQuantity(max(int64(s.Resources.Memory)/2, 1<<20), resource.BinarySI), resource.NewQuantity(runSize, resource.BinarySI), int32(0o400)
	spec := corev1.PodSpec{
		Hostname: string(s.ID), RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &grace,
		AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		NodeSelector: in.NodeSelector, Tolerations: in.Tolerations, PriorityClassName: in.PriorityClassName,
		SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{{
			Name: "machine", Image: s.Image, ImagePullPolicy: in.ImagePullPolicy,
			Resources: corev1.ResourceRequirements{Limits: limits, Requests: requests},
			Ports:     []corev1.ContainerPort{{Name: "ssh", ContainerPort: sshPort}},
			// What its first process said last is kept with how it ended.
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &escalate, RunAsUser: &root, RunAsGroup: &root, // whoever its image is for
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities}},
			VolumeMounts: []corev1.VolumeMount{{Name: "run", MountPath: "/run"}, {Name: "shm", MountPath: "/dev/shm"},
				{Name: "join", MountPath: "/run/shoal/" + joinFile, SubPath: joinFile, ReadOnly: true}},
		}},
		Volumes: []corev1.Volume{
			{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: small}}},
			{Name: "shm", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: half}}},
			{Name: "join", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name(s.ID)}}}}}}},
		},
	}
	if in.RuntimeClassName != "" {
		spec.RuntimeClassName = &in.RuntimeClassName
	}
	for _, n := range in.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: n})
	}
	labels := p.labels(s)
	if in.SpreadOver != "" {
		spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: in.SpreadOver, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{labelInstallation: p.cfg.Installation, labelPool: string(s.Pool)}}}}
	}
	if err := mount(&spec, s.Mounts); err != nil {
		return nil, err
	}
	kept, err := json.Marshal(labels)
	if err != nil {
		return nil, err
	}
	notes := map[string]string{noteToken: hash(s.Token), noteLabels: string(kept), "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
	if in.budget() {
		notes[noteBudget] = "yes"
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name(s.ID), Namespace: in.Namespace, Labels: labels, Annotations: notes}, Spec: spec}, nil
}

// mount adds the shares, each once however often it is seen.
func mount(spec *corev1.PodSpec, mounts []provider.Mount) error {
	c := &spec.Containers[0]
	for i, m := range mounts {
		v, sub, err := volume(m.Share)
		if err != nil {
			return err
		}
		v.Name = fmt.Sprintf("share-%d", i)
		spec.Volumes = append(spec.Volumes, v)
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: path.Clean(m.Path), SubPath: sub, ReadOnly: m.ReadOnly})
	}
	return nil
}

// volume is a share as Kubernetes knows it: a claim, an NFS export, or a directory that all nodes have.
func volume(s shoal.Share) (v corev1.Volume, sub string, err error) {
	if path.IsAbs(s.Source) {
		kind := corev1.HostPathDirectory
		v.HostPath = &corev1.HostPathVolumeSource{Path: path.Clean(s.Source), Type: &kind}
		return v, "", nil
	}
	u, err := url.Parse(s.Source)
	switch {
	case err != nil:
		return v, "", provider.Errorf(provider.Invalid, "share %s: %w", s.Name, err)
	case u.Scheme == "pvc" && u.Host != "":
		v.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: u.Host}
		return v, strings.Trim(path.Clean("/"+u.Path), "/"), nil
	case u.Scheme == "nfs" && u.Host != "" && u.Port() == "":
		if len(s.Options) > 0 {
			return v, "", provider.Errorf(provider.Invalid, "share %s has mount options, which a pod's NFS volume cannot have: use a claim (pvc://NAME) whose volume has them", s.Name)
		}
		v.NFS = &corev1.NFSVolumeSource{Server: u.Hostname(), Path: path.Clean("/" + u.Path)}
		return v, "", nil
	}
	return v, "", provider.Errorf(provider.Invalid, "pods cannot mount share %s (%s): use a claim (pvc://NAME), nfs://HOST/PATH, or a directory that every node has", s.Name, s.Source)
}
