package desktop

import (
	"fmt"
	"path/filepath"

	"github.com/shoal-pool/shoal/internal/host/localdisk"
)

// pam lets in whom the control plane knows by the password, and puts her into her slice. It has no other way in: what
// the image says for all services (local passwords, for one) does not count here.
func (s *Server) pam() string {
	return fmt.Sprintf(`# Written by Shoal; changes are lost.
auth requisite pam_exec.so quiet expose_authtok %[1]s password
auth required pam_permit.so
account requisite pam_nologin.so
account required pam_unix.so
password required pam_deny.so
session required pam_exec.so quiet %[1]s enter
session optional pam_umask.so
session optional pam_env.so
session required pam_permit.so
`, s.cfg.Agent)
}

// xrdpText is xrdp.ini. Only TLS is spoken: the older security of RDP is none. One kind of session is offered, so
// that nobody is asked which, and xrdp connects to nothing but this machine's own.
func (s *Server) xrdpText(port int) string {
	return fmt.Sprintf(`; Written by Shoal; changes are lost.
[Globals]
ini_version=1
fork=true
port=%d
use_vsock=false
tcp_nodelay=true
tcp_keepalive=true
security_layer=tls
crypt_level=high
certificate=%s
key_file=%s
ssl_protocols=TLSv1.2, TLSv1.3
autorun=desktop
allow_channels=true
allow_multimon=true
bitmap_cache=true
bitmap_compression=true
bulk_compression=true
max_bpp=32
new_cursors=true
use_fastpath=both
enable_token_login=false
blue=009cb5
grey=dedede
ls_title=%s
ls_top_window_bg_color=003057
ls_width=350
ls_height=260
ls_bg_color=f0f0f0
ls_logo_filename=
ls_label_x_pos=30
ls_label_width=65
ls_input_x_pos=110
ls_input_width=210
ls_input_y_pos=60
ls_btn_ok_x_pos=142
ls_btn_ok_y_pos=200
ls_btn_ok_width=85
ls_btn_ok_height=30
ls_btn_cancel_x_pos=237
ls_btn_cancel_y_pos=200
ls_btn_cancel_width=85
ls_btn_cancel_height=30

[Logging]
LogFile=/var/log/xrdp/xrdp.log
LogLevel=WARNING
EnableSyslog=false
EnableConsole=false

[Channels]
rdpdr=true
rdpsnd=true
drdynvc=true
cliprdr=true
rail=true
xrdpvr=true

[desktop]
name=desktop
lib=libxup.so
username=ask
password=ask
ip=127.0.0.1
port=-1
code=20
`, port, filepath.Join(s.cfg.Dir, "cert.pem"), filepath.Join(s.cfg.Dir, "key.pem"), s.cfg.Name)
}

// sesmanText is sesman.ini. Desktops stay when their client goes, and are found again; the session's pin tells. A client
// with another depth of colours gets a desktop of its own, which xrdp does not let us change.
func (s *Server) sesmanText() string {
	return fmt.Sprintf(`; Written by Shoal; changes are lost.
[Globals]
ListenAddress=127.0.0.1
ListenPort=%d
EnableUserWindowManager=false
UserWindowManager=startwm.sh
DefaultWindowManager=%s
ReconnectScript=/bin/true

[Security]
AllowRootLogin=false
MaxLoginRetry=4
AlwaysGroupCheck=false
RestrictOutboundClipboard=none
RestrictInboundClipboard=none

[Sessions]
X11DisplayOffset=10
MaxSessions=1000
KillDisconnected=false
DisconnectedTimeLimit=0
IdleTimeLimit=0
Policy=Default

[Logging]
LogFile=/var/log/xrdp-sesman.log
LogLevel=WARNING
EnableSyslog=false
EnableConsole=false

[Xorg]
param=%s
param=-config
param=xrdp/xorg.conf
param=-noreset
param=-nolisten
param=tcp
param=-logfile
param=.xorgxrdp.%%s.log

[Chansrv]
FuseMountName=thinclient_drives
FileUmask=077
EnableFuseMount=false

[ChansrvLogging]
LogLevel=WARNING
EnableSyslog=false
`, SesmanPort, filepath.Join(s.cfg.Dir, "startwm"), s.xorg())
}

// startwm starts what the user or the image has for a desktop, beside what has it painted (see Repaint). A bare window
// manager shows an empty screen, so it gets a terminal beside it, unless the user has said herself what comes up.
func (s *Server) startwm() string {
	return surroundings + localdisk.Shell() + fmt.Sprintf(choice, s.cfg.Agent)
}

const surroundings = `#!/bin/sh
# Written by Shoal; changes are lost.
for f in /etc/profile "$HOME/.profile"; do
	[ -r "$f" ] && . "$f"
done
for f in /run/shoal/secrets/"$(id -un)"/*; do # of the pool
	[ -f "$f" ] && value=$(cat "$f" && echo x) && export "${f##*/}=${value%x}" "${f##*/}_FILE=$f"
done
unset f value
`

const choice = `has() { command -v "$1" >/dev/null 2>&1; }
if [ -z "$XDG_RUNTIME_DIR" ]; then # nobody has made one: there is no systemd
	d=/tmp/xdg-runtime-$(id -u)
	mkdir -m 700 "$d" 2>/dev/null
	[ -O "$d" ] && [ -d "$d" ] && [ ! -L "$d" ] && chmod 700 "$d" && export XDG_RUNTIME_DIR="$d"
fi
if [ -z "$DBUS_SESSION_BUS_ADDRESS" ] && has dbus-run-session && ! has dbus-launch; then
	exec dbus-run-session -- "$0"
fi
%s repaint &
terminal() {
	for t in x-terminal-emulator xterm lxterminal xfce4-terminal konsole; do
		if has "$t"; then "$t" & return; fi
	done
}
if [ ! -e "$HOME/.xsession" ] && [ ! -e "$HOME/.Xsession" ]; then
	session=$(readlink -f "$(command -v x-session-manager || command -v x-window-manager || echo none)")
	case "${session##*/}" in
	openbox | openbox-session) [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/openbox/autostart" ] || terminal ;;
	icewm | fluxbox | twm | fvwm | fvwm3 | metacity | mutter) terminal ;;
	none)
		for s in startxfce4 mate-session startlxqt startplasma-x11 gnome-session; do
			has "$s" && exec "$s"
		done
		for s in openbox-session icewm-session fluxbox openbox twm; do
			if has "$s"; then
				terminal
				exec "$s"
			fi
		done
		for t in xterm x-terminal-emulator; do
			has "$t" && exec "$t"
		done
		;;
	esac
fi
[ -r /etc/X11/Xsession ] && exec /bin/sh /etc/X11/Xsession
[ -x "$HOME/.xsession" ] && exec "$HOME/.xsession"
for s in x-session-manager x-window-manager xterm; do
	has "$s" && exec "$s"
done
echo "there is no window manager on this machine" >&2
exit 1
`
