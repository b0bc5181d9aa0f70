package shares

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
)

func TestParse(t *testing.T) {
	for source, want := range map[string]Source{
		"/srv/team/":                     {Path: "/srv/team"},
		"nfs://files/export/team":        {NFS, "files", 2049, "", "", "/export/team"},
		"nfs://[fe80::1]:12049/x":        {NFS, "fe80::1", 12049, "", "", "/x"},
		"smb://files:1445/team":          {SMB, "files", 1445, "", "team", ""},
		"smb://files/team/a/b":           {SMB, "files", 445, "", "team", "a/b"},
		"azurefiles://acct1/work":        {Azure, "acct1.file.core.windows.net", 445, "acct1", "work", ""},
		"sftp://alice@files:2222/srv/up": {SFTP, "files", 2222, "alice", "", "/srv/up"},
		"pvc://team":                     {Claim, "team", 0, "", "", ""},
		"pvc://team/data/":               {Claim, "team", 0, "", "", "data"},
		"sftp://files/srv":               {SFTP, "files", 22, "root", "", "/srv"},
	} {
		if got, err := Parse(shoal.Share{Name: "s", Source: source}); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", source, got, err, want)
		}
	}
	s := shoal.Share{Name: "s", Source: "azurefiles://acct1/work", Options: map[string]string{"host": "10.0.2.2:1445"}}
	if got, err := Parse(s); err != nil || got.Host != "10.0.2.2" || got.Port != 1445 || got.User != "acct1" {
		t.Errorf("with another host: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "team", "nfs://files", "nfs://files/", "nfs:///x", "nfs://-o/x", "nfs://u@files/x", "smb://files/", "smb://u:hunter2@files/x", "sftp://u:hunter2@h/x", "nfs://u:hunter2@",
		"ftp://h/x", "nfs://h/a/../b", "nfs://h/a%2f..%2fb", "nfs://h/x?y", "nfs://h/a\nb", "azurefiles://ACCT/x", "azurefiles://a.b/x", "sftp://-oProxyCommand=x@h/x", "nfs://h:99999/x", "pvc://", "pvc://a:1/x", "pvc://u@a"} {
		if got, err := Parse(shoal.Share{Name: "s", Source: bad}); err == nil || shoal.HintOf(err) == "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func TestCheckOptions(t *testing.T) {
	for _, c := range []struct {
		source, name, value string
		ok                  bool
	}{
		{"nfs://h/x", "vers", "4.1", true}, {"nfs://h/x", "vers", "5", false}, {"nfs://h/x", "softerr", "", true}, {"nfs://h/x", "softerr", "1", false},
		{"nfs://h/x", "suid", "", false}, {"nfs://h/x", "dev", "", false}, {"nfs://h/x", "timeo", "600", true}, {"nfs://h/x", "timeo", "1,suid", false},
		{"smb://h/x", "password", "x", false}, {"smb://h/x", "credentials", "/etc/x", false}, {"smb://h/x", "seal", "", true}, {"smb://h/x", "dir_mode", "0770", true},
		{"smb://h/x", "dir_mode", "4777", false}, {"smb://h/x", "vers", "1.0", false}, {"smb://h/x", "host", "other", false}, {"smb://h/x", "uid", "1000", true},
		{"azurefiles://acct/x", "host", "other:445", true}, {"azurefiles://acct/x", "vers", "2.1", false}, {"azurefiles://acct/x", "host", "a/b", false},
		{"sftp://h/x", "hostkey", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG", true}, {"sftp://h/x", "ProxyCommand", "x", false}, {"sftp://h/x", "hostkey", "x\ny", false},
		{"/srv/x", "ro", "", false}, {"pvc://a", "ro", "", false},
	} {
		s := shoal.Share{Name: "s", Source: c.source, Options: map[string]string{c.name: c.value}}
		if !strings.HasPrefix(c.source, "nfs") && !strings.HasPrefix(c.source, "/") && !strings.HasPrefix(c.source, "pvc") {
			s.Credentials = &shoal.SecretRef{Secret: "key"}
		}
		all := Check(s)
		if (len(all) == 0) != c.ok {
			t.Errorf("%s with %s=%s: %v", c.source, c.name, c.value, all)
		}
		for _, m := range all {
			if m.Hint == "" || m.Path == "" {
				t.Errorf("%s with %s=%s: %+v has no hint or place", c.source, c.name, c.value, m)
			}
		}
	}
	for source, creds := range map[string]bool{"azurefiles://acct/x": false, "sftp://h/x": false, "nfs://h/x": true, "/srv/x": true} {
		s := shoal.Share{Name: "s", Source: source}
		if creds {
			s.Credentials = &shoal.SecretRef{Secret: "key"}
		}
		if len(Check(s)) != 1 || Usable(s) == nil {
			t.Errorf("%s with credentials %v is taken", source, creds)
		}
	}
}

// Whatever is taken can be handed to a mounting program without meaning anything else there.
func FuzzCheck(f *testing.F) {
	f.Add("nfs://files:2049/export", "vers", "4.2")
	f.Add("smb://h/s/p", "file_mode", "0700")
	f.Add("azurefiles://acct/x", "host", "[::1]:445")
	f.Add("sftp://a@h/x", "hostkey", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB")
	f.Fuzz(func(t *testing.T, source, name, value string) {
		s := shoal.Share{Name: "s", Source: source, Options: map[string]string{name: value}, Credentials: &shoal.SecretRef{Secret: "x"}}
		src, err := Parse(s)
		if err != nil {
			return
		}
		for _, part := range []string{src.Host, src.User, src.Share} {
			if strings.HasPrefix(part, "-") && part == src.Host || strings.ContainsAny(part, "\x00\n,/\\") {
				t.Fatalf("%q: %+v", source, src)
			}
		}
		if src.Kind != Directory && (src.Host == "" || src.Port < 1 || src.Port > 65535) || strings.ContainsAny(src.Path, "\x00\n\\") {
			t.Fatalf("%q: %+v", source, src)
		}
		for _, elem := range strings.Split(src.Path, "/") {
			if elem == ".." {
				t.Fatalf("%q: %+v", source, src)
			}
		}
		for _, m := range Check(s) {
			if strings.HasPrefix(m.Path, "options.") {
				return
			}
		}
		if strings.ContainsAny(name+value, ",\x00\n") || strings.HasPrefix(name, "-") {
			t.Fatalf("the option %q=%q is taken", name, value)
		}
	})
}
