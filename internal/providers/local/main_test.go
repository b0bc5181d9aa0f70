package local

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
)

// imagesDir is where the tests' common store of images is; set by TestMain.
var imagesDir string

// commonImages is the store that all tests share but those of stores.
var commonImages = sync.OnceValues(func() (*rootfs.Store, error) { return rootfs.Open(imagesDir) })

// TestMain runs a server to be killed where a test asks for one.
func TestMain(m *testing.M) {
	mounts.Child()
	if dir := os.Getenv("SHOAL_LOCAL_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	var err error
	if imagesDir, err = os.MkdirTemp("", "shoal-images-"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(imagesDir)
	os.Exit(code)
}
