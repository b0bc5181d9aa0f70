package sizes_test

import (
	"fmt"
	"testing"

	"github.com/shoal-pool/shoal/internal/arm/sizes"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Standard_D2s_v3": "2 8GiB 0", "STANDARD_NC6": "6 56GiB 1", "Standard_A1": "1 1.8GiB 0", "Standard_D1_v2": "1 3.5GiB 0", "Standard_DS1_v2": "1 3.5GiB 0", "Basic_A0": "1 768MiB 0",
		"Standard_NC24rs_v3": "24 448GiB 4", "Standard_NC6s_v2": "6 112GiB 1", "Standard_E16-4s_v3": "4 128GiB 0", "Standard_F8s_v2": "8 16GiB 0", "Standard_D4ads_v5": "4 16GiB 0", "Standard_D4lds_v5": "4 8GiB 0",
		"Standard_E64s_v3": "64 432GiB 0", "Standard_B2ms": "2 8GiB 0", "standard_gs3": "8 112GiB 0", "Standard_NC4as_T4_v3": "4 28GiB 1", "Standard_M128ms": "128 3.8TiB 0", "Standard_L8s_v2": "8 64GiB 0", "Standard_DS13-2_v2": "2 56GiB 0",
		"Standard_E32ds_v4": "32 256GiB 0", "Standard_D3_v3": "", "Standard_Z9": "", "": "", "Standard_D2s_v9": "", "huge": "", "Standard_D4-8s_v3": "",
	} {
		r, ok := sizes.Of(name)
		got := ""
		if ok {
			got = fmt.Sprint(r.CPUs, " ", r.Memory, " ", r.GPUs)
		}
		if got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
		if len(sizes.Like(name)) == 0 {
			t.Errorf("%s: nothing is like it", name)
		}
	}
}
