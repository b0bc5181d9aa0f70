package deploy

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// values reads what the command line gives for parameters: files first, then what it says itself, then what people
// are asked for.
func (env Env) values(t *arm.Template, o options) ([]arm.Values, error) {
	var layers []arm.Values
	inline := arm.Values{From: "the command line"}
	for _, s := range o.parameters {
		file, isFile := strings.CutPrefix(s, "@")
		key, value, hasKey := strings.Cut(s, "=")
		switch {
		case isFile, !hasKey && exists(s):
			if !isFile {
				file = s
			}
			data, err := readFile(file)
			if err != nil {
				return nil, err
			}
			v, err := arm.ReadValues(arm.File{Name: file, Data: data})
			if err != nil {
				return nil, err
			}
			layers = append(layers, v)
		case strings.HasPrefix(strings.TrimSpace(s), "{"):
			v, err := arm.ReadValues(arm.File{Name: "the command line", Data: []byte(s)})
			if err != nil {
				return nil, err
			}
			inline.Given = append(inline.Given, v.Given...)
		case !hasKey || key == "":
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read the parameters %q", tree.Clip(s, 60)).WithHint("write @FILE, KEY=VALUE, KEY=@FILE or KEY=env:NAME")
		default:
			g, err := env.given(t, key, value)
			if err != nil {
				return nil, err
			}
			inline.Given = append(inline.Given, g)
		}
	}
	layers = append(layers, inline)
	asked, err := env.ask(t, o, layers)
	return append(layers, asked), err
}

// given is KEY=VALUE, KEY=@FILE or KEY=env:NAME.
func (env Env) given(t *arm.Template, key, value string) (arm.Given, error) {
	secure := slices.ContainsFunc(t.Parameters(), func(p arm.Parameter) bool { return strings.EqualFold(p.Name, key) && p.Secure() })
	if file, ok := strings.CutPrefix(value, "@"); ok {
		data, err := readFile(file)
		if err != nil {
			return arm.Given{}, err
		}
		return t.Word(key, strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
	}
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		if value = env.Getenv(name); value == "" {
			return arm.Given{}, shoal.Errorf(shoal.KindInvalid, "parameter %s: the variable %s is not set", key, name)
		}
		return t.Word(key, value)
	}
	if secure && value != "" {
		env.Note("parameter %s is a secret, and whoever sees this command line or its history reads it; better: %s=@FILE, %s=env:NAME, or leave it out to be asked", key, key, key)
	}
	return t.Word(key, value)
}

// ask asks for the parameters without a value.
func (env Env) ask(t *arm.Template, o options, layers []arm.Values) (arm.Values, error) {
	out := arm.Values{From: "what was typed"}
	if o.noPrompt || !env.Terminal() {
		return out, nil // what is missing is told with the other mistakes
	}
	for _, p := range t.Parameters() {
		has := p.Default != nil || slices.ContainsFunc(layers, func(v arm.Values) bool {
			return slices.ContainsFunc(v.Given, func(g arm.Given) bool {
				return strings.EqualFold(g.Name, p.Name) && (g.Vault != "" || g.Value != nil && g.Value.Kind != tree.Null)
			})
		})
		if has {
			continue
		}
		text, err := env.askOne(env.in, p)
		if err != nil {
			return out, err
		}
		g, err := t.Word(p.Name, text)
		if err != nil {
			return out, err
		}
		out.Given = append(out.Given, g)
	}
	return out, nil
}

// askOne asks as az does: ? shows what the parameter is, and allowed values are a menu.
func (env Env) askOne(in *bufio.Reader, p arm.Parameter) (string, error) {
	prompt := fmt.Sprintf("Please provide %s value for '%s' (? for help): ", p.Type, env.Clean(p.Name))
	for range 20 {
		text, err := env.line(in, p, prompt)
		if err != nil {
			return "", err
		}
		switch {
		case text == "?":
			help := p.Description
			if help == "" {
				help = "the template says nothing about it"
			}
			fmt.Fprintln(env.Err, env.Clean(help))
		case len(p.Allowed) > 0:
			if text == "" {
				text = "1"
			}
			n, err := strconv.Atoi(text)
			if err == nil && n >= 1 && n <= len(p.Allowed) {
				return p.Allowed[n-1].Text(), nil
			}
			fmt.Fprintf(env.Err, "Valid values are numbers from 1 to %d\n", len(p.Allowed))
		case p.Type == "int":
			if _, err := strconv.ParseInt(text, 10, 64); err == nil {
				return text, nil
			}
			fmt.Fprintf(env.Err, "%s is not a valid number\n", env.Clean(tree.Clip(text, 60)))
		case strings.HasSuffix(p.Type, "string"):
			return text, nil
		case text != "" && isJSON(text):
			return text, nil
		case text != "":
			fmt.Fprintf(env.Err, "That is not JSON: the template wants %s here\n", wanted[p.Type])
		}
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot ask for parameter %s any more", p.Name)
}

// wanted are examples of what is no string.
var wanted = map[string]string{"bool": "true or false", "array": `a list as ["a", "b"]`, "object": `an object as {"a": 1}`, "secureobject": `an object as {"a": 1}`}

func isJSON(text string) bool {
	_, _, wrong := tree.Parse("", []byte(text))
	return wrong == nil
}

// line shows a prompt and reads what is typed.
func (env Env) line(in *bufio.Reader, p arm.Parameter, prompt string) (string, error) {
	if p.Secure() {
		return env.Secret(prompt)
	}
	fmt.Fprint(env.Err, prompt)
	if len(p.Allowed) > 0 {
		fmt.Fprintln(env.Err)
		for i, a := range p.Allowed {
			fmt.Fprintf(env.Err, " [%d] %s\n", i+1, env.Clean(tree.Clip(a.Text(), 100)))
		}
		fmt.Fprint(env.Err, "Please enter a choice [Default choice(1)]: ")
	}
	text, err := in.ReadString('\n')
	if err != nil {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot read a value for parameter %s: %w", p.Name, err)
	}
	return strings.TrimSpace(text), nil
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
