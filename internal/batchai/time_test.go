package batchai_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batchai"
	"github.com/shoal-pool/shoal/internal/spec"
)

// A file full of mistakes is refused with the first of them, and costs no more than others of its size.
func TestManyMistakes(t *testing.T) {
	t.Parallel()
	var keys, variables, references strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&keys, `"nodeCounz%d":1,`, i)
	}
	for i := range 4_000 {
		fmt.Fprintf(&variables, `{"name":"V%d","value":"$AZ_BATCHAI_TASK_INDEZ"},`, i)
		fmt.Fprintf(&references, "$AZ_BATCHAI_INPUT_D%d $AZ_BATCHAI_JOB_MOUNT_ROOT/x%d ", i, i)
	}
	for name, text := range map[string]string{
		"keys":       `{"properties":{` + keys.String() + `"x":1}}`,
		"variables":  `{"properties":{"environmentVariables":[` + variables.String() + `]}}`,
		"references": `{"properties":{"customToolkitSettings":{"commandLine":"` + references.String() + `"}}}`,
	} {
		for _, lenient := range []bool{false, true} {
			_, err := batchai.ReadJob(spec.File{Name: "x", Data: []byte(text)}, batchai.Options{Lenient: lenient})
			if m := shoal.MistakesOf(err); err == nil || len(m) > 101 {
				t.Errorf("%s: %v with %d mistakes", name, err, len(m))
			}
		}
	}
}
