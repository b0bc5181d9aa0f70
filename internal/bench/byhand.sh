# Starts one machine with runc and nothing else, logs in, prints the milliseconds from the start to the
# output of the first command, and removes the machine. $1: scratch directory, $2: private key.
set -euo pipefail
scratch=$1 key=$2
dir=$(mktemp -d "$scratch/byhand-XXXXXX")
name=byhand$$
cleanup() {
	runc --root "$dir/state" delete -f "$name" 2>/dev/null || true
	ip netns del "$name" 2>/dev/null || true
	umount "$dir/root" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
start=$(date +%s%N)
mkdir -p "$dir"/{upper,work,root,state}
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
ip netns add "$name"
ip link add "h$$" type veth peer name eth0 netns "$name"
ip addr add 10.213.0.1/30 dev "h$$"
ip link set "h$$" up
ip -n "$name" addr add 10.213.0.2/30 dev eth0
ip -n "$name" link set eth0 up
ip -n "$name" link set lo up
cat > "$dir/init" <<'INIT'
#!/bin/sh
mkdir -p /run/sshd /tmp/k
ssh-keygen -q -t ed25519 -N '' -f /tmp/k/host
useradd -m -u 20001 byhand 2>/dev/null
mkdir -p /etc/keys
cp /byhand.pub /etc/keys/byhand
exec /usr/sbin/sshd -D -e -o HostKey=/tmp/k/host -o AuthorizedKeysFile=/etc/keys/%u -o StrictModes=no -o UsePAM=yes
INIT
chmod 755 "$dir/init"
cp "$dir/init" "$dir/root/init.byhand"
cp "$key.pub" "$dir/root/byhand.pub"
caps='"CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_SETGID","CAP_SETUID","CAP_NET_BIND_SERVICE","CAP_SYS_CHROOT","CAP_AUDIT_WRITE"'
cat > "$dir/config.json" <<CONF
{"ociVersion":"1.0.2","hostname":"byhand","root":{"path":"$dir/root"},
"process":{"args":["/init.byhand"],"env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"cwd":"/","user":{"uid":0,"gid":0},
"capabilities":{"bounding":[$caps],"effective":[$caps],"permitted":[$caps]}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["mode=755"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666","mode=0620","gid=5"]},
{"destination":"/run","type":"tmpfs","source":"tmpfs","options":["mode=755"]}],
"linux":{"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"/run/netns/$name"}]}}
CONF
(cd "$dir" && runc --root "$dir/state" run -d "$name" </dev/null >/dev/null 2>"$dir/log")
for _ in $(seq 500); do
	if out=$(ssh -F none -i "$key" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
		-o ConnectTimeout=1 byhand@10.213.0.2 echo here 2>"$dir/ssh.log"); then
		[ "$out" = here ]
		echo $((($(date +%s%N) - start) / 1000000))
		exit 0
	fi
	sleep 0.01
done
cat "$dir/ssh.log" "$dir/log" >&2
exit 1
