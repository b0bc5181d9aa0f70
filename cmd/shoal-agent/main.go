// Command shoal-agent is what runs in every machine. It is one small binary with several parts:
//
//	init    the machine's first process: starts and restarts the others, and ends the machine
//	run     the loop: joins the control plane, makes the machine what it should be, reports
//	app     runs one user's web app, lets the gateway in to it, and outlives run
//	task    runs the attempts of jobs and outlives run
//	enter   the door: puts a session into its user's slice, called by PAM
//	password  asks the control plane for a password, called by PAM for desktops
//	repaint  has a desktop painted for each client that comes to it, in its user's session
//	files   makes files on one mount, which may not answer
//	home    archives a local home to a share or brings it back, as its user
//	homes   archives all local homes, called by init when the machine ends
//	version
//
// init, task and enter are started often or live long beside everything else, so nothing that
// costs time or memory may be done before main.
//
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"

	appsupervisor "github.com/shoal-pool/shoal/internal/host/apps/supervisor"
	"github.com/shoal-pool/shoal/internal/host/tasks/supervisor"
)

// version is set by the linker.
var version = "dev"

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	switch os.Args[1] {
	case "init":
		os.Exit(initMain())
	case "run":
		os.Exit(runMain())
	case "task":
		os.Exit(supervisor.Main(os.Args[2:]))
	case "app":
		os.Exit(appsupervisor.Main(os.Args[2:]))
	case "enter":
		os.Exit(enterMain())
	case "password":
		os.Exit(passwordMain())
	case "repaint":
		os.Exit(repaintMain())
	case "files":
		os.Exit(filesMain())
	case "home":
		os.Exit(homeMain(os.Args[2:]))
	case "homes":
		os.Exit(homesMain())
	case "version":
		fmt.Println(version)
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: shoal-agent init|run|task|app|enter|password|repaint|files|home|homes|version; it is started by Shoal, not by hand")
	os.Exit(2)
}

// Where things are in a machine. /run is empty at each start of it, the rest is on its disk.
const (
	agentPath  = "/opt/shoal/bin/shoal-agent"
	joinFile   = "/run/shoal/join.json"
	relayPath  = "/run/shoal.sock"
	agentDir   = "/run/shoal/agent" // root's alone
	sshdDir    = "/run/shoal/sshd"
	sshdConfig = sshdDir + "/sshd_config"
	sshdPath   = "/usr/sbin/sshd"
	sshdLog    = "/var/log/sshd.log"
	desktopDir = "/run/shoal/desktop"
	doorPath   = agentDir + "/door"
	vaultDir   = agentDir + "/vault"
	stateDir   = "/var/lib/shoal" // with a directory per machine, so that a copied image's is not taken for ours
	sshPort    = 22
)
