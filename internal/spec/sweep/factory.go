package sweep

import (
	"strings"

	"github.com/shoal-pool/shoal"
)

// Factory is a file of parameters as Batch AI's job factory read it.
type Factory struct {
	Params []FactoryParameter `json:"params"`
}

// FactoryParameter is one of its parameters.
type FactoryParameter struct {
	Name      string   `json:"parameterName"`
	OldName   string   `json:"parameter_name"` // as some of its kinds were read
	Type      string   `json:"paramType"`      // NumParam, DiscreteParam, DictParam, FileParam
	DataType  string   `json:"dataType"`       // INTEGER or REAL
	Start     *float64 `json:"start"`
	End       *float64 `json:"end"`
	Scale     string   `json:"scale"` // LINEAR or LOG
	NumValues *float64 `json:"numValues"`
	Step      *float64 `json:"step"`
	Values    []any    `json:"values"`
}

// Sweep is the same in our words. A random search draws from the whole of a range, as the factory did.
func (f Factory) Sweep(random bool) (Sweep, []shoal.Mistake) {
	s := Sweep{Parameters: map[string]any{}}
	var e expansion
	for _, p := range f.Params {
		name := p.Name
		if name == "" {
			name = p.OldName
		}
		if _, twice := s.Parameters[name]; twice {
			e.wrong("params", "", "parameter %q is there twice", clip(name))
		}
		switch p.Type {
		case "NumParam":
			if random {
				p.NumValues, p.Step = nil, nil
			}
			s.Parameters[name] = p.numbers()
		case "DiscreteParam", "DictParam":
			s.Parameters[name] = p.Values
		case "FileParam":
			e.wrong("params", "write {files: \"data/*.csv\", prefix: /shared/} in a sweep of ours", "parameter %q lists files of an Azure account", clip(name))
		default:
			e.wrong("params", "there are: NumParam, DiscreteParam, DictParam", "%q is no type of parameter", clip(p.Type))
		}
	}
	return s, e.mistakes
}

func (p FactoryParameter) numbers() map[string]any {
	m := map[string]any{"scale": strings.ToLower(p.Scale), "integer": strings.EqualFold(p.DataType, "INTEGER")}
	if p.Scale == "" || strings.EqualFold(p.Scale, "RANDOM_UNIFORM") {
		m["scale"] = "linear"
	}
	for key, v := range map[string]*float64{"from": p.Start, "to": p.End, "count": p.NumValues, "step": p.Step} {
		if v != nil {
			m[key] = *v
		}
	}
	return m
}
