// Package kube starts a real Kubernetes for tests: etcd, API server, controllers, scheduler, and nodes whose kubelets run pods
// with containerd. Everything is in network namespaces that it makes itself and ends with them; it needs root.
//
// The servers are one program, the module in hyperkube, which is built once into a cache outside the repository. Debian's
// containerd and network plug-ins are unpacked there, not installed: scripts/setup test fetches their packages.
package kube
