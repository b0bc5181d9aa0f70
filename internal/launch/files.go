package launch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// files are those of the attempt on this node.
func (v *view) files(env map[string]string, command string) map[string]string {
	out := map[string]string{"hostfile": v.hostfile(" slots="), "machinefile": v.hostfile(":"), "env": exports(env)}
	if v.launcher() != head {
		out["rank"] = v.rankScript(command)
	}
	if v.inside() {
		out["inside"] = v.launcher()
	}
	if v.parts() {
		out["ranks"] = v.ranksScript()
	}
	if v.SSH != nil {
		out["ssh_key"] = v.SSH.Key
		out["ssh_config"], out["known_hosts"] = v.sshConfig()
		out["ssh"] = "#!/bin/sh\n# ssh to the nodes of this task.\nexec ssh -F " + v.at("ssh_config") + " \"$@\"\n"
	}
	return out
}

// hostfile lists the nodes with the processes that an mpirun may start there. Addresses need no name service, and Open MPI
// finds its own among them.
func (v *view) hostfile(between string) string {
	var b strings.Builder
	for i, n := range v.Nodes {
		if slots := v.room(i); slots > 0 {
			fmt.Fprintf(&b, "%s%s%d\n", n.host(), between, slots)
		}
	}
	return b.String()
}

// exports are variables as a shell reads them.
func exports(env map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || word(name) != strings.ToUpper(name) || name[0] >= '0' && name[0] <= '9' {
			continue // no shell can have it
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(env[name]))
	}
	return b.String()
}

// mpirun is the command of the first node.
func (v *view) mpirun() string {
	all, _ := v.processes()
	return fmt.Sprintf("exec mpirun --hostfile %s -n %d --bind-to none %s", v.at("hostfile"), all, v.at("rank"))
}

// rankScript runs the command as one process of many: mpirun, or the script ranks, tells which.
func (v *view) rankScript(command string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# One process of the task. Whoever starts it says which.\n")
	fmt.Fprintf(&b, "rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${SHOAL_RANK:-0}}}\n")
	fmt.Fprintf(&b, "size=${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-${SHOAL_SIZE:-1}}}\n")
	fmt.Fprintf(&b, "local=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${SHOAL_LOCAL:-0}}}\n")
	fmt.Fprintf(&b, ". %s\n", v.at("env"))
	fmt.Fprintf(&b, "export RANK=$rank WORLD_SIZE=$size LOCAL_RANK=$local\n")
	switch v.spec.Dialect {
	case batchAI:
		fmt.Fprintf(&b, "export AZ_BATCHAI_TASK_INDEX=$rank\n")
	case slurm:
		fmt.Fprintf(&b, "export SLURM_PROCID=$rank SLURM_LOCALID=$local\n")
	}
	shell := "/bin/sh"
	if v.inside() {
		shell = v.at("inside") + " " + shell
	}
	fmt.Fprintf(&b, "cd -- %s || exit\nexec %s -c %s\n", workdirWord(v.workdir), shell, quote(command))
	return b.String()
}

// inside reports whether each process is to run in a container of its own. The agent makes a program of that name of the
// file: it knows what runs containers on its machine. What starts the processes runs on the machine itself.
func (v *view) inside() bool { return v.spec.Container != nil && (v.launcher() == mpi || v.parts()) }

func workdirWord(dir string) string {
	if dir == "" {
		return `"$HOME"`
	}
	return quote(dir)
}

// ranksScript starts this node's part of the processes, ends with the first that fails, and takes the others along.
func (v *view) ranksScript() string {
	all, first := v.processes()
	return `#!/bin/sh
# Starts the processes of this node and ends with them: as soon as one fails, all do. Who ends the
# task signals every process of it, so nothing is passed on here.
trap 'ended=143' TERM
trap 'failed=1' USR1
dir=` + v.at("") + `
export SHOAL_SIZE=` + strconv.Itoa(all) + `
n=0 failed= ended=0
while [ $n -lt ` + strconv.Itoa(v.slots[v.rank]) + ` ]; do
	(
		trap : TERM
		exec 3>&2 2>/dev/null # of its own this shell would say that somebody was ended
		SHOAL_RANK=$((` + strconv.Itoa(first) + ` + n)) SHOAL_LOCAL=$n "$dir/rank" 2>&3 3>&- &
		child=$!
		wait $child; status=$?
		while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
		[ $status = 0 ] || { mkdir "$dir/failed" 2>/dev/null && echo $status >"$dir/failed/status"; kill -USR1 $$; }
	) &
	n=$((n + 1))
done
until wait; do
	[ -z "$failed" ] || break
done
[ -e "$dir/failed/status" ] || exit $ended
kill 0
until wait; do :; done
exit "$(cat "$dir/failed/status")"
`
}

// sshConfig lets ssh reach the nodes with the attempt's key, and nothing else.
func (v *view) sshConfig() (config, hosts string) {
	var c, k strings.Builder
	for _, n := range v.Nodes {
		fmt.Fprintf(&c, "Host %s %s\n  HostName %s\n  Port %s\n  HostKeyAlias %s\n", n.Machine, n.host(), n.host(), n.port(), n.Machine)
		fmt.Fprintf(&k, "%s %s\n", n.Machine, strings.TrimSpace(n.HostKey))
	}
	fmt.Fprintf(&c, `Host *
  User %s
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  PasswordAuthentication no
  BatchMode yes
  ConnectTimeout 20
  ServerAliveInterval 20
  LogLevel ERROR
`, v.Job.User, v.at("ssh_key"), v.at("known_hosts"))
	return c.String(), k.String()
}
