package rootfs

// The allow-list. What is not named here is not in a machine of the image host, and of what is named only
// what everybody may read on the host. Left out on purpose although common: environment, gitconfig,
// npmrc, pip.conf, wgetrc and the like, into which people write tokens; a pool can ask for them by
// providerConfig's etc.

// etcNames are the entries of the host's /etc that machines get a copy of.
func etcNames() []string {
	return []string{
		"ImageMagick-6", "ImageMagick-7", "OpenCL", "R", "X11", "adduser.conf", "alternatives", "apt",
		"bash.bashrc", "bash_completion.d", "bindresvport.blacklist", "ca-certificates", "ca-certificates.conf",
		"dbus-1", "dconf", "debconf.conf", "debian_version", "deluser.conf", "dictionaries-common", "dpkg",
		"emacs", "ethertypes", "fonts", "gai.conf", "ghostscript", "glvnd", "gnome", "groff", "gss", "gtk-2.0", "gtk-3.0",
		"host.conf", "inputrc", "ipython", "issue", "issue.net", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk",
		"jupyter", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "libaudit.conf", "libblockdev", "locale.alias", "locale.conf",
		"locale.gen", "localtime", "login.defs", "lynx", "magic", "magic.mime", "mailcap", "manpath.config",
		"matplotlibrc", "maven", "mime.types", "mpi", "nanorc", "netconfig", "networks", "nsswitch.conf", "openmpi",
		"os-release", "pam.conf", "paperspecs", "perl", "profile", "profile.d", "protocols", "pulse",
		"python2.7", "python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13",
		"rpc", "security", "services", "sgml", "shells", "skel", "ssl", "terminfo", "texmf", "timezone",
		"ucf.conf", "vim", "vulkan", "xattr.conf", "xdg", "xml", "xrdp", "zsh",
		"default/locale", "default/useradd", "default/keyboard",
		"ssh/ssh_config", "ssh/ssh_config.d", "ssh/moduli",
	}
}

// varNames are the entries of the host's /var that machines get a copy of. The package database is
// not among them: it is a tree.
func varNames() []string {
	return []string{
		"cache/fontconfig", "cache/man", "lib/aspell", "lib/dictionaries-common", "lib/emacsen-common", "lib/ghostscript",
		"lib/ispell", "lib/misc", "lib/pam", "lib/python", "lib/sgml-base", "lib/shells.state", "lib/texmf", "lib/tex-common",
		"lib/ucf", "lib/vim", "lib/xfonts", "lib/xkb", "lib/xml-core",
	}
}

// emptyDirs are what a root file system has beside, with the modes that programs expect.
func emptyDirs() []dirMode {
	return []dirMode{
		{"boot", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"etc/default", 0o755}, {"etc/pam.d", 0o755}, {"etc/ssh", 0o755},
		{"etc/opt", 0o755}, {"etc/sudoers.d", 0o750}, {"home", 0o755}, {"media", 0o755}, {"mnt", 0o755}, {"opt", 0o755},
		{"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"srv", 0o755}, {"sys", 0o555}, {"tmp", 0o1777},
		{"usr", 0o755}, {"var", 0o755}, {"var/backups", 0o755}, {"var/cache", 0o755}, {"var/lib", 0o755},
		{"var/cache/apt", 0o755}, {"var/cache/apt/archives", 0o755}, {"var/cache/apt/archives/partial", 0o700},
		{"var/lib/apt", 0o755}, {"var/lib/apt/lists", 0o755}, {"var/lib/apt/lists/partial", 0o700}, {"var/lib/dpkg", 0o755},
		{"var/local", 0o755}, {"var/log", 0o755}, {"var/log/apt", 0o755}, {"var/mail", 0o775}, {"var/opt", 0o755},
		{"var/spool", 0o755}, {"var/spool/cron", 0o755}, {"var/tmp", 0o1777},
	}
}

// packageDB is the package database; its status file tells when the host's software changes.
const (
	packageDB     = "/var/lib/dpkg"
	packageStatus = packageDB + "/status"
)

// writtenFiles are the files of /etc that Shoal writes itself.
func writtenFiles() []writtenFile {
	return []writtenFile{
		{"etc/fstab", 0o644, "# mounts of this machine are made by Shoal\n"},
		{"etc/environment", 0o644, ""},
		{"etc/motd", 0o644, ""},
		{"etc/subuid", 0o644, ""},
		{"etc/subgid", 0o644, ""},
		{"etc/sudoers", 0o440, "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n"},
		{"etc/pam.d/common-auth", 0o644, "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so\nauth required pam_permit.so\n"},
		{"etc/pam.d/common-account", 0o644, "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\naccount requisite pam_deny.so\naccount required pam_permit.so\n"},
		{"etc/pam.d/common-password", 0o644, "password [success=1 default=ignore] pam_unix.so obscure yescrypt\npassword requisite pam_deny.so\npassword required pam_permit.so\n"},
		{"etc/pam.d/common-session", 0o644, pamSession},
		{"etc/pam.d/common-session-noninteractive", 0o644, pamSession},
		{"etc/pam.d/other", 0o644, pamPlain},
		{"etc/pam.d/login", 0o644, pamPlain},
		{"etc/pam.d/passwd", 0o644, "@include common-password\n"},
		{"etc/pam.d/chsh", 0o644, "auth sufficient pam_rootok.so\n" + pamPlain},
		{"etc/pam.d/chfn", 0o644, "auth sufficient pam_rootok.so\n" + pamPlain},
		{"etc/pam.d/su", 0o644, "auth sufficient pam_rootok.so\n" + pamPlain},
		{"etc/pam.d/su-l", 0o644, "auth sufficient pam_rootok.so\n" + pamPlain},
		{"etc/pam.d/sudo", 0o644, pamPlain},
		{"etc/pam.d/cron", 0o644, pamPlain},
		{"etc/pam.d/xrdp-sesman", 0o644, pamPlain},
		{"etc/pam.d/sshd", 0o644, "@include common-auth\naccount required pam_nologin.so\n@include common-account\n@include common-session\n@include common-password\n"},
	}
}

// Every session of whatever program goes through the agent's one door, which puts it into the user's slice.
const (
	pamSession = "session required pam_exec.so quiet stdout /opt/shoal/bin/shoal-agent enter\nsession optional pam_umask.so\nsession required pam_env.so\nsession required pam_permit.so\n"
	pamPlain   = "@include common-auth\n@include common-account\n@include common-password\n@include common-session\n"
)

type dirMode struct {
	path string
	mode uint32
}

type writtenFile struct {
	path string
	mode uint32
	text string
}
