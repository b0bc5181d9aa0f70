package fileservers

import (
	"fmt"
	"os"
	"strings"
)

// NFSExport is a directory that an NFS server offers.
type NFSExport struct {
	Name   string // below the server's root
	Dir    string
	Squash bool // whether root is nobody
}

// NFSServer speaks NFS version 4, without rpcbind, and writes owners as numbers.
type NFSServer struct{ *Server }

// StartNFS starts nfs-ganesha with its state in dir.
func StartNFS(dir string, exports ...NFSExport) (*NFSServer, error) {
	s, err := newServer("nfs-ganesha", dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.path("recovery"), 0o755); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `NFS_CORE_PARAM { NFS_Port = %s; Bind_addr = 127.0.0.1; Protocols = 4; NFS_Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFSV4 { Only_Numeric_Owners = true; Graceless = true; RecoveryBackend = fs; RecoveryRoot = "%s"; Lease_Lifetime = 10; }
LOG { Default_Log_Level = WARN; }
`, s.Port, s.path("recovery"))
	for i, e := range exports {
		squash := "No_Root_Squash"
		if e.Squash {
			squash = "Root_Squash"
		}
		fmt.Fprintf(&b, "EXPORT { Export_Id = %d; Path = \"%s\"; Pseudo = \"/%s\"; Access_Type = RW; Squash = %s; SecType = sys; Transports = TCP; Protocols = 4; FSAL { Name = VFS; } }\n",
			i+1, e.Dir, e.Name, squash)
	}
	if err := s.write("ganesha.conf", b.String(), 0o644); err != nil {
		return nil, err
	}
	s.args = []string{"ganesha.nfsd", "-F", "-f", s.path("ganesha.conf"), "-L", "STDERR", "-p", s.path("pid")}
	return &NFSServer{s}, s.Start()
}

// URL is the source of a share, seen from a host.
func (s *NFSServer) URL(host, export string) string {
	return "nfs://" + host + ":" + s.Port + "/" + export
}
