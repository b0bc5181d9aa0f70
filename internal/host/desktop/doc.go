// Package desktop configures a machine's xrdp, which gives remote desktops: with the pool's certificate, who is let in, and
// through which door people come. It starts nothing; init does.
//
// There are two programs. xrdp speaks RDP with strangers, so it runs under an account of its own. xrdp-sesman starts
// desktops as root, after PAM has asked the agent, which asks the control plane: a machine holds no password. Each
// desktop is opened through the same door as an SSH session, so all its processes are in its user's slice. One of them has
// it painted anew for each client that comes (see Repaint).
//
// The configuration lies in /run: a machine whose pool has no rdp endpoint any more has none after its next start.
package desktop
