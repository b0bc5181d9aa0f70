package launch

import (
	"path"

	"github.com/shoal-pool/shoal/api"
)

// secrets gives an order the values of secrets: each as a variable, and as a file, of which VARIABLE_FILE is the path.
func (v *view) secrets(o *api.TaskOrder) {
	for variable, value := range v.Secrets {
		name := "secret-" + variable
		o.Env[variable] = value
		o.Env[variable+"_FILE"] = path.Join(api.TaskDir(o.Ref), name)
		setFile(o, name, value)
	}
}

func setFile(o *api.TaskOrder, name, text string) {
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files[name] = text
}
