package spec_test

import (
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// A job that asks for nothing fits on any machine; one that asks is taken at its word.
func TestFitJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ asked, machine, want shoal.Resources }{
		{shoal.Resources{}, shoal.Resources{CPUs: 4000, Memory: 8 << 30}, shoal.Resources{CPUs: 1000, Memory: 512 << 20}},
		{shoal.Resources{}, shoal.Resources{CPUs: 500, Memory: 256 << 20}, shoal.Resources{CPUs: 500, Memory: 256 << 20}},
		{shoal.Resources{CPUs: 2000, GPUs: 1}, shoal.Resources{CPUs: 500, Memory: 256 << 20}, shoal.Resources{CPUs: 2000, Memory: 256 << 20, GPUs: 1}},
	} {
		j := shoal.JobSpec{Resources: c.asked}
		if spec.FitJob(&j, c.machine); j.Resources != c.want {
			t.Errorf("%+v on %+v: %+v", c.asked, c.machine, j.Resources)
		}
	}
}

// Linux is what a pool's machines run unless it says otherwise, and saying so changes nothing.
func TestPoolOS(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"linux": "", "windows": shoal.Windows} {
		set, err := spec.Parse(spec.File{Name: "p", Data: []byte("kind: Pool\nname: lab\nos: " + word + "\n")})
		if err != nil || set.Pools[0].OS != want {
			t.Errorf("%s: %q %v", word, set.Pools[0].OS, err)
		}
	}
	if _, err := spec.Parse(spec.File{Name: "p", Data: []byte("kind: Pool\nname: lab\nos: window\n")}); shoal.KindOf(err) != shoal.KindInvalid {
		t.Error(err)
	}
}
