package gpu

import (
	"os"
	"testing"
)

// FuzzParse: whatever a driver writes, nothing in it is believed that could not be a GPU's.
func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/two.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("<nvidia_smi_log><gpu><minor_number>-1</minor_number></gpu><gpu><minor_number> 3 </minor_number><uuid>GPU-a,b</uuid></gpu></nvidia_smi_log>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		said, err := parse(b)
		if err != nil && said != nil {
			t.Error("an error, and an answer")
		}
		for _, s := range said {
			if s.Minor < 0 || s.Memory < 0 || s.Used < 0 || s.Busy < 0 || s.Busy > 100 {
				t.Errorf("%+v", s)
			}
		}
	})
}
