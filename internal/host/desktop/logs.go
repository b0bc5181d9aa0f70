package desktop

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLog is how large a log of xrdp may grow: who comes and says nonsense has some lines in it.
const maxLog = 4 << 20

// CutLogs keeps the programs' logs short; they append. One of them lies in a directory of xrdp's account, so it is not
// followed anywhere.
func (s *Server) CutLogs() {
	for _, name := range []string{"var/log/xrdp/xrdp.log", "var/log/xrdp-sesman.log"} {
		fd, err := unix.Open(filepath.Join(s.cfg.Root, name), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), name)
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > maxLog {
			_ = f.Truncate(0) // another time, then
		}
		_ = f.Close()
	}
}
