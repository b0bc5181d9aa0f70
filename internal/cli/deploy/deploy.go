// Package deploy is `shoal deploy`: templates of Azure's resource manager become pools.
package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/translate"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Env is the command line that the command is part of.
type Env struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string
	Note   func(format string, args ...any) // says what is not a result
	Clean  func(string) string              // takes out of a stranger's text what a terminal would obey
	// Terminal reports whether somebody can be asked; Secret asks for what is not shown while it is typed.
	Terminal func() bool
	Secret   func(prompt string) (string, error)
	Format   func(*cobra.Command) *string // adds the flag
	Data     func(format string, v any) error
	// Connect gives the server and its URL, which is empty for a socket; Gate is where ssh goes.
	Connect func() (*client.Client, string, error)
	Gate    func(ctx context.Context, c *client.Client, server, told string) (host, port string, err error)

	in *bufio.Reader // what is typed
}

// options are the command's flags.
type options struct {
	group, location, name string
	file, uri             string
	parameters            []string
	images, sizes, shares []string
	answers               string
	provider, most        string
	whatIf, noPrompt      bool
	scripts, noUsers      bool
}

// Command makes `shoal deploy`.
func Command(env Env) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "deploy --template-file FILE [--parameters @FILE] [KEY=VALUE…]",
		Short: "Make pools of a deployment template of Azure's",
		Long: `Read a deployment template of Azure's resource manager with its parameters, and make the pools, shares and users that it becomes
here; what of it has no meaning here is told. With --what-if nothing is made; --what-if -o yaml writes the documents, which
"shoal apply -f" takes.

Parameters come from files (@FILE), from KEY=VALUE, from KEY=@FILE (what is in the file) and from KEY=env:NAME; what is said in the
command line comes before what files say, and later before earlier. What is missing is asked for, unless --no-prompt is given.

Deploying again changes what differs, and nothing else. Each deployment is on record under its name, without secrets.`,
		Example: `  shoal deploy --template-file azuredeploy.json --parameters @azuredeploy.parameters.json --what-if
  shoal deploy -g research --template-file vmss.json --parameters @p.json vmssName=lab adminPassword=@pw --share team=/srv/team
  shoal deploy show vmss`,
		Args: cobra.ArbitraryArgs,
	}
	env.in = bufio.NewReader(env.In)
	f := cmd.Flags()
	f.StringVarP(&o.group, "group", "g", "shoal", "the `GROUP` that resourceGroup() answers with, and a label of the objects")
	f.StringVarP(&o.location, "location", "l", "local", "the `LOCATION` of the group")
	f.StringVar(&o.name, "name", "", "the `NAME` of the deployment; default: the template's")
	f.StringVarP(&o.file, "template-file", "f", "", "the template's `FILE`")
	f.StringVarP(&o.uri, "template-uri", "u", "", "the template's `URL`: https or file")
	f.StringArrayVarP(&o.parameters, "parameters", "p", nil, "values of parameters: `@FILE`, KEY=VALUE, KEY=@FILE, KEY=env:NAME; may be repeated")
	f.StringArrayVar(&o.images, "image-map", nil, "what an image of the template is here, `REF=IMAGE`; *=IMAGE is for all others; may be repeated")
	f.StringArrayVar(&o.sizes, "size-map", nil, "what machines of a size have, `SIZE=CPUS,MEMORY[,GPUS]`; may be repeated")
	f.StringArrayVar(&o.shares, "share", nil, "where a share of the template's is, `NAME=SOURCE`: team=/srv/team; may be repeated")
	f.StringVar(&o.answers, "answers", "", "a `FILE` with what resources have that only a deployment would know")
	f.StringVar(&o.provider, "provider", "local", "the `PROVIDER` that makes the machines")
	f.StringVar(&o.most, "most", "", "give machines no more than `CPUS,MEMORY[,GPUS]`, whatever their size says")
	f.BoolVar(&o.scripts, "allow-scripts", false, "run the template's own scripts, as root, on each new machine")
	f.BoolVar(&o.noUsers, "no-users", false, "make no documents of the template's users, because they are users already")
	f.BoolVar(&o.whatIf, "what-if", false, "only say what would be")
	f.BoolVar(&o.noPrompt, "no-prompt", false, "ask for nothing: what is missing is a mistake")
	format := env.Format(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.parameters = append(o.parameters, args...) // --parameters @FILE KEY=VALUE, as az takes it
		d, err := env.read(o)
		if err != nil {
			return err
		}
		if o.whatIf {
			return env.show(d, *format)
		}
		return env.deploy(cmd.Context(), o, d, *format)
	}
	for _, flag := range []string{"template-file", "answers"} {
		_ = cmd.MarkFlagFilename(flag)
	}
	cmd.AddCommand(env.list(), env.one())
	return cmd
}

// deployment is a template with its parameters, in our words.
type deployment struct {
	*translate.Result
	name, template string
	evaluated      *arm.Result
}

// read says what a template becomes.
func (env Env) read(o options) (*deployment, error) {
	load := &loader{note: env.Note}
	f, err := load.template(o.file, o.uri)
	if err != nil {
		return nil, err
	}
	t, err := arm.Read(f)
	if err != nil {
		return nil, err
	}
	values, err := env.values(t, o)
	if err != nil {
		return nil, err
	}
	name := o.name
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(f.Name), filepath.Ext(f.Name))
	}
	in := arm.Input{Values: values, Loader: load, Context: arm.Context{Deployment: name, Group: o.group, Location: o.location, Now: time.Now(), Seed: o.group + "/" + name}}
	if o.answers != "" {
		data, err := readFile(o.answers)
		if err != nil {
			return nil, err
		}
		if in.Answers, err = arm.ReadAnswers(arm.File{Name: o.answers, Data: data}); err != nil {
			return nil, err
		}
	}
	how, err := o.translation()
	if err != nil {
		return nil, err
	}
	evaluated, err := arm.Evaluate(t, in)
	if err != nil {
		return nil, err
	}
	result, err := translate.Translate(evaluated, how)
	if err != nil {
		return nil, err
	}
	if o.noUsers {
		result.Set.Users, result.Passwords = nil, nil
	}
	label(&result.Set, o.group)
	return &deployment{Result: result, name: name, template: f.Name, evaluated: evaluated}, nil
}

// label makes the objects known as those of a group.
func label(set *spec.Set, group string) {
	with := func(labels map[string]string) map[string]string {
		all := map[string]string{}
		maps.Copy(all, labels)
		all["group"] = group
		return all
	}
	for i := range set.Pools {
		set.Pools[i].Labels = with(set.Pools[i].Labels)
	}
	for i := range set.Shares {
		set.Shares[i].Labels = with(set.Shares[i].Labels)
	}
}

// translation are the options of translating.
func (o options) translation() (translate.Options, error) {
	out := translate.Options{AllowScripts: o.scripts, Provider: o.provider, Images: map[string]string{}, Shares: map[string]string{}, Sizes: map[string]shoal.Resources{}}
	for _, m := range []struct {
		flag string
		list []string
		into map[string]string
	}{{"--image-map", o.images, out.Images}, {"--share", o.shares, out.Shares}} {
		for _, s := range m.list {
			from, to, ok := cutLast(s, m.flag == "--image-map")
			if !ok || from == "" || to == "" {
				return out, shoal.Errorf(shoal.KindInvalid, "cannot read %s %q", m.flag, s).WithHint("write %s NAME=WHAT", m.flag)
			}
			m.into[from] = to
		}
	}
	if o.most != "" {
		r, err := resources(o.most)
		if err != nil {
			return out, shoal.Errorf(shoal.KindInvalid, "cannot read --most %q", o.most).WithHint("write --most 2,4GiB or --most 2,4GiB,1")
		}
		out.Most = r
	}
	for _, s := range o.sizes {
		name, has, _ := strings.Cut(s, "=")
		r, err := resources(has)
		if err != nil || name == "" {
			return out, shoal.Errorf(shoal.KindInvalid, "cannot read --size-map %q", s).WithHint("write --size-map Standard_X1=4,16GiB or Standard_X1=4,16GiB,1")
		}
		out.Sizes[name] = r
	}
	return out, nil
}

// cutLast cuts NAME=WHAT at its first, or for images, which have no = in them, its last equals sign.
func cutLast(s string, last bool) (from, to string, ok bool) {
	i := strings.IndexByte(s, '=')
	if last {
		i = strings.LastIndexByte(s, '=')
	}
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func resources(s string) (shoal.Resources, error) {
	var r shoal.Resources
	parts := strings.Split(s, ",")
	if len(parts) < 2 || len(parts) > 3 {
		return r, fmt.Errorf("%q has not two or three parts", s)
	}
	var err error
	if r.CPUs, err = shoal.ParseCPU(parts[0]); err != nil {
		return r, err
	}
	if r.Memory, err = shoal.ParseBytes(parts[1]); err != nil {
		return r, err
	}
	if len(parts) == 3 {
		r.GPUs, err = strconv.Atoi(parts[2])
	}
	return r, err
}

// show writes the documents, and says what is not one of them.
func (env Env) show(r *deployment, format string) error {
	if format == "json" {
		e := json.NewEncoder(env.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(map[string]any{"shares": r.Set.Shares, "users": r.Set.Users, "pools": r.Set.Pools, "changes": r.Changes, "outputs": outputs(r.Outputs), "notes": r.Notes})
	}
	for _, n := range r.Notes {
		env.Note("%s", n)
	}
	for _, s := range r.Secrets {
		env.Note("secret %q: the template has its value, and it is shown nowhere", s.Name)
	}
	for _, p := range r.Passwords {
		env.Note("user %q: the template has a password for her, which is shown nowhere", p.User)
	}
	for _, c := range r.Changes {
		env.Note("%s", change(c))
	}
	for _, o := range r.Outputs {
		env.Note("output %s: %s", o.Name, r.safe(o.Value))
	}
	if format == "yaml" {
		out, err := spec.Documents(r.Set)
		if err != nil {
			return err
		}
		_, err = env.Out.Write(out)
		return err
	}
	for _, s := range r.Set.Shares {
		fmt.Fprintf(env.Out, "share %s of %s\n", s.Name, s.Source)
	}
	for _, u := range r.Set.Users {
		fmt.Fprintf(env.Out, "user %s\n", u.Name)
	}
	for _, p := range r.Set.Pools {
		fmt.Fprintf(env.Out, "pool %s: %s with %s\n", p.Name, machines(p.Size), translate.Amount(p.Machine))
	}
	return nil
}

func change(c translate.Change) string {
	s := fmt.Sprintf("pool %s is to change", c.Pool)
	if c.Size != nil {
		s += ": " + machines(*c.Size)
	}
	if c.Machine != nil {
		s += ", with " + translate.Amount(*c.Machine)
	}
	return s
}

// machines is a size in words.
func machines(s shoal.Size) string {
	switch {
	case s.Min < s.Max:
		return fmt.Sprintf("%d to %d machines", s.Min, s.Max)
	case s.Max == 1:
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", s.Max)
}

// shown is an output for people.
func shown(v *tree.Value) string {
	switch {
	case v.Secret:
		return tree.HiddenText
	case v.Uncertain():
		return v.Sketch()
	case v.Kind == tree.String:
		return v.Text()
	}
	return v.Show()
}

func outputs(all []arm.Output) map[string]any {
	out := map[string]any{}
	for _, o := range all {
		out[o.Name] = map[string]any{"type": o.Type, "value": o.Value}
	}
	return out
}
