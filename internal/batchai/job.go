package batchai

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

// Options say how a file is read.
type Options struct {
	Lenient bool
	Shares  map[string]Place // where its mounts are here, by their names below the root or Azure's; Everything: the others
	Account string           // for where the file says <AZURE_BATCHAI_STORAGE_ACCOUNT>
	Items   []shoal.Item     // of a job that is a sweep
	Name    string           // of what is made of the file, unless that has a name itself
	// OnMachine leaves the container out: the commands run on the machine itself.
	OnMachine bool
	Pool      shoal.PoolName // instead of the file's cluster
}

// Job is a job.json in our words.
type Job struct {
	Spec   shoal.JobSpec
	Shares []shoal.Share // those of its mounts that the options do not map
	Notes  []Note
}

// translation is a job while it is made.
type translation struct {
	*reading
	spec    shoal.JobSpec
	roots   roots
	places  map[string]place // of what the spec's paths were made of
	links   []string         // lines of shell before the commands: what makes the roots
	prelude []string         // and what may need them
}

// ReadJob reads a job.json. The error is of KindInvalid and lists all mistakes.
func ReadJob(f spec.File, o Options) (Job, error) {
	r := &reading{file: f.Name, options: o, used: map[string]bool{}}
	n, err := r.open(f, keysOf(reflect.TypeFor[jobFile]()))
	if err != nil {
		return Job{}, err
	}
	var file jobFile
	r.read(n, &file)
	t := translation{reading: r, places: map[string]place{}, spec: shoal.JobSpec{Dialect: "batchai", Env: map[string]string{}, Items: o.Items}}
	spec.DefaultJob(&t.spec)
	shares := t.job(file)
	t.check(n.at)
	if r.found() {
		return Job{}, r.invalid()
	}
	if len(t.spec.Env) == 0 {
		t.spec.Env = nil
	}
	return Job{Spec: t.spec, Shares: shares, Notes: r.sorted()}, nil
}

// open reads a file, and puts what is not nested under "properties" there.
func (r *reading) open(f spec.File, outer []known) (*node, error) {
	n, m := parse(f.Data)
	if m == nil && n.kind != object {
		m = &shoal.Mistake{Line: n.at.line, Column: n.at.column, Msg: "the file holds " + n.kind.String() + ", not an object"}
	}
	if m != nil {
		m.File = f.Name
		return nil, spec.Invalid([]shoal.Mistake{*m})
	}
	if n.under("properties") != nil {
		return n, nil
	}
	r.note(n.at, "what the format has under \"properties\" stands at the top: it is read as if it were there")
	inner := &node{kind: object, at: n.at}
	whole := &node{kind: object, at: n.at}
	for i, k := range n.keys {
		to := inner
		if slices.ContainsFunc(outer, func(c known) bool { return strings.EqualFold(c.name, k.text) }) {
			to = whole
		}
		to.keys, to.values = append(to.keys, k), append(to.values, n.values[i])
	}
	whole.keys, whole.values = append(whole.keys, key{n.at, "properties"}), append(whole.values, inner)
	return whole, nil
}

// read decodes a file. Rules about it come later, and only about what could be read.
func (r *reading) read(n *node, file any) {
	r.top = n.under("properties").at
	r.decode(n, reflect.ValueOf(file).Elem(), "")
	r.unread = len(r.mistakes)
}

// sorted are the notes in the order of the file.
func (r *reading) sorted() []Note {
	slices.SortStableFunc(r.notes, func(a, b Note) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	return r.notes
}

// found reports whether something is wrong with the file, be it that too much is.
func (r *reading) found() bool { return len(r.mistakes) > 0 || r.more }

func (r *reading) invalid() error {
	slices.SortStableFunc(r.mistakes, func(a, b shoal.Mistake) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	if r.more {
		r.mistakes = append(r.mistakes, shoal.Mistake{File: r.file, Msg: fmt.Sprintf("there is more to say than %d lines", most), Hint: "is this a file of Batch AI's?"})
	}
	return spec.Invalid(r.mistakes)
}

func (t *translation) job(f jobFile) []shoal.Share {
	p := f.Properties
	if t.spec.Name = t.options.Name; f.Name.s != "" {
		t.spec.Name = f.Name.s
		t.places["name"] = f.Name.at
	}
	if t.spec.Pool = t.options.Pool; t.spec.Pool == "" && p.Cluster != nil && p.Cluster.ID.s != "" {
		t.spec.Pool = shoal.PoolName(naming.Of(naming.Last(p.Cluster.ID.s), "pool"))
		t.note(p.Cluster.ID.at, "the cluster is taken to be pool %q; -p POOL says otherwise", t.spec.Pool)
	}
	nodes := 1
	if !p.NodeCount.set {
		t.liberty(place{}, "properties.nodeCount", "add nodeCount: 1", "it is taken to be 1", "the job does not say how many nodes it needs")
	} else if nodes = p.NodeCount.n; nodes < 1 || nodes > 1000 {
		t.wrong(p.NodeCount.at, "properties.nodeCount", "", "%d is no number of nodes", nodes)
		nodes = 1
	}
	t.spec.Nodes = shoal.Fixed(nodes)
	t.container(p.Container)
	t.priority(p)
	t.limit(p.Constraints)
	var shares []shoal.Share
	t.roots, shares = t.mounts(p)
	t.references(p)
	t.environment(p)
	start := t.toolkit(p, nodes)
	start.fit(&t.spec)
	t.directories(p)
	t.output(p.StdOutErr, start.output)
	t.setRoots()
	if p.Preparation != nil {
		t.spec.Prepare = p.Preparation.Line.s
		if strings.Contains(t.spec.Prepare, "apt") {
			t.note(p.Preparation.Line.at, "jobPreparation runs as the job's user, not as root: what installs packages belongs into the pool's setup")
		}
	}
	if lines := append(t.links, t.prelude...); len(lines) > 0 {
		head := strings.Join(lines, "\n") + "\n"
		t.spec.Command = head + t.spec.Command
		if t.spec.Prepare != "" {
			t.spec.Prepare = head + t.spec.Prepare
		}
	}
	return shares
}

func (t *translation) container(c *container) {
	if c == nil {
		return
	}
	if c.Source == nil || c.Source.Image.s == "" {
		t.wrong(c.At, "properties.containerSettings.imageSourceRegistry.image", "", "the container has no image")
		return
	}
	if t.options.OnMachine {
		t.note(c.At, "containerSettings are left out: the commands run on the machines themselves")
		return
	}
	t.contained = true
	image := c.Source.Image.s
	_, server, found := strings.Cut(c.Source.Server.s, "://")
	if !found {
		server = c.Source.Server.s
	}
	if server = strings.TrimRight(server, "/"); server != "" && !strings.HasPrefix(image, server+"/") {
		image = server + "/" + image
	}
	t.spec.Container = &shoal.Container{Image: image}
	t.places["container"] = c.Source.Image.at
	t.note(c.Source.Image.at, "the commands run in container image %s, where the pool's machines can; --set container= runs them on the machines themselves", image)
	if c.Shm.s != "" {
		t.spec.Container.Options = []string{"--shm-size=" + c.Shm.s}
	}
	if k := c.Source.Credentials; k != nil {
		const at = "properties.containerSettings.imageSourceRegistry.credentials"
		if k.Password.s != "" {
			t.inline(k.Password.at, at+".password")
		} else {
			t.liberty(k.At, at, "log in to the registry on the pool's machines", "it is left out", "accounts of registries are not supported by this version of Shoal")
		}
	}
}

func (t *translation) priority(p jobProperties) {
	words := []string{"low", "normal", "high"}
	if s := strings.ToLower(p.Priority.s); s != "" {
		if t.spec.Priority = s; !slices.Contains(words, s) {
			t.wrong(p.Priority.at, "properties.schedulingPriority", spec.Suggest(s, words), "%q is no priority", clip(p.Priority.s))
		}
		return
	}
	if p.OldPriority.s == "" {
		return
	}
	n, err := strconv.Atoi(p.OldPriority.s)
	t.spec.Priority = words[1]
	switch {
	case err != nil:
		t.wrong(p.OldPriority.at, "properties.priority", "did you mean schedulingPriority?", "a whole number is wanted here")
	case n < 0:
		t.spec.Priority = words[0]
	case n > 0:
		t.spec.Priority = words[2]
	}
	t.liberty(p.OldPriority.at, "properties.priority", "did you mean schedulingPriority?", "it is read as "+t.spec.Priority, "this is a number of an earlier version")
}

var (
	clock  = regexp.MustCompile(`^(?:(\d{1,4})\.)?(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.\d+)?$`)
	period = regexp.MustCompile(`^P(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,6})M)?(?:(\d{1,8})(?:\.\d+)?S)?)?$`)
)

// limit reads 7.00:00:00, or P7D as the API had it.
func (t *translation) limit(c *constraints) {
	if c == nil || c.MaxWallClockTime.s == "" {
		return
	}
	w := c.MaxWallClockTime
	m := clock.FindStringSubmatch(w.s)
	if m == nil {
		m = period.FindStringSubmatch(w.s)
	}
	var total time.Duration
	if m != nil {
		for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
			n, _ := strconv.Atoi("0" + m[i+1])
			total += time.Duration(n) * unit
		}
	}
	if total <= 0 {
		t.wrong(w.at, "properties.constraints.maxWallClockTime", "write 1.12:00:00 for a day and a half", "%q cannot be read as a duration", clip(w.s))
	}
	t.spec.TimeLimit = shoal.Duration(total)
	t.places["timeLimit"] = w.at
}

var reference = regexp.MustCompile(`\$(?:\{(AZ_[A-Za-z0-9_]*)\}|(AZ_[A-Za-z0-9_]*))`)

// given are the variables that every job sees.
var given = strings.Fields(`AZ_BATCHAI_MOUNT_ROOT AZ_BATCHAI_JOB_MOUNT_ROOT AZ_BATCHAI_STDOUTERR_DIR AZ_BATCHAI_JOB_TEMP AZ_BATCHAI_JOB_TEMP_DIR
	AZ_BATCHAI_SHARED_JOB_TEMP AZ_BATCHAI_NUM_GPUS AZ_BATCHAI_NUM_GPUS_PER_NODE AZ_BATCHAI_MPI_HOST_FILE AZ_BATCHAI_TASK_INDEX
	AZ_BATCHAI_PS_HOSTS AZ_BATCHAI_WORKER_HOSTS AZ_BATCHAI_PYTORCH_INIT_METHOD AZ_BATCHAI_PYTORCH_BACKEND
	AZ_BATCHAI_MPI_MASTER_NODE AZ_BATCH_HOST_LIST AZ_BATCH_NODE_LIST AZ_BATCH_MASTER_NODE AZ_BATCH_IS_CURRENT_NODE_MASTER`)

// references looks at every $AZ_… of the file: something must set it, and below a root something must be mounted.
func (t *translation) references(p jobProperties) {
	known := slices.Clone(given)
	if t.full() {
		return
	}
	for _, d := range p.Inputs {
		known = append(known, "AZ_BATCHAI_INPUT_"+d.ID.s)
	}
	for _, d := range p.Outputs {
		known = append(known, "AZ_BATCHAI_OUTPUT_"+d.ID.s)
	}
	for _, v := range p.Environment {
		known = append(known, v.Name.s)
	}
	set := make(map[string]bool, len(known))
	for _, name := range known {
		set[name] = true
	}
	walk(reflect.ValueOf(p), "properties", func(s text, path string) {
		if t.full() || !strings.Contains(s.s, "$") {
			return
		}
		for _, m := range reference.FindAllStringSubmatch(s.s, -1) {
			if name := m[1] + m[2]; !set[name] && !t.full() {
				t.liberty(s.at, path, nearest(name, known), "it will be empty, as it was", "nothing sets $%s", clip(name))
			}
		}
		for _, m := range underRoot.FindAllStringSubmatch(s.s, -1) {
			if !t.full() {
				t.below(t.roots, s.at, path, m[2], m[1] != "")
			}
		}
	})
}

// nearest suggests a variable, by what differs between those there are.
func nearest(name string, known []string) string {
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return "did you mean $" + k + "?"
		}
	}
	const prefix, enough = "AZ_BATCHAI_", 200
	known = known[:min(len(known), enough)]
	short := make([]string, len(known))
	for i, k := range known {
		short[i] = strings.TrimPrefix(k, prefix)
	}
	best := spec.Suggest(strings.TrimPrefix(name, prefix), short)
	if word, ok := strings.CutPrefix(best, "did you mean "); ok {
		return "did you mean $" + prefix + word
	}
	if strings.HasPrefix(name, prefix+"INPUT_") || strings.HasPrefix(name, prefix+"OUTPUT_") {
		return "declare it in inputDirectories or outputDirectories"
	}
	return ""
}

// walk visits the texts of a file, but no secrets.
func walk(v reflect.Value, path string, visit func(text, string)) {
	switch x := v.Interface().(type) {
	case text:
		visit(x, path)
		return
	case number, ignored, place, secret, credentials, registryCredentials:
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Struct:
		for _, k := range keysOf(v.Type()) {
			walk(v.Field(k.index), join(path, k.name), visit)
		}
	}
}

func (t *translation) environment(p jobProperties) {
	for i, v := range p.Environment {
		at := fmt.Sprintf("properties.environmentVariables[%d]", i)
		if v.Name.s == "" {
			t.wrong(v.At, at+".name", "", "the variable has no name")
			continue
		}
		if _, twice := t.spec.Env[v.Name.s]; twice {
			t.liberty(v.At, at, "", "the last one counts", "variable %q is there twice", clip(v.Name.s))
		}
		t.spec.Env[v.Name.s] = v.Value.s
		t.places["env."+v.Name.s] = v.Name.at
	}
	for i, s := range p.Secrets {
		at := fmt.Sprintf("properties.secrets[%d]", i)
		switch {
		case s.Name.s == "":
			t.wrong(s.At, at+".name", "", "the secret has no name")
		case s.Reference != nil:
			if t.spec.Secrets == nil {
				t.spec.Secrets = map[string]string{}
			}
			t.spec.Secrets[s.Name.s] = secretName(s.Reference.URL.s)
			t.places["secrets."+s.Name.s] = s.At
			t.note(s.At, "variable %s comes from secret %q, which must hold what the key vault held", s.Name.s, t.spec.Secrets[s.Name.s])
		case s.Value.s != "":
			t.inline(s.Value.at, at+".value")
		default:
			t.wrong(s.At, at, "give valueSecretReference", "the secret has no value")
		}
	}
}

// directories are the job's inputs and outputs. What only a running job can name is set by the commands.
func (t *translation) directories(p jobProperties) {
	for i, d := range p.Inputs {
		at := fmt.Sprintf("properties.inputDirectories[%d]", i)
		if d.ID.s == "" || d.Path.s == "" {
			t.wrong(d.At, at, "", "an input directory has an id and a path")
			continue
		}
		dir, ok := t.roots.resolve(d.Path.s)
		if !ok {
			t.prelude = append(t.prelude, "export AZ_BATCHAI_INPUT_"+d.ID.s+"="+shellWord(d.Path.s))
			t.identifier(d.ID, at)
			continue
		}
		if t.spec.Inputs == nil {
			t.spec.Inputs = map[string]string{}
		}
		t.spec.Inputs[d.ID.s] = dir
		t.places["inputs."+d.ID.s] = d.Path.at
	}
	for i, d := range p.Outputs {
		at := fmt.Sprintf("properties.outputDirectories[%d]", i)
		if d.ID.s == "" || d.Prefix.s == "" {
			t.wrong(d.At, at, "", "an output directory has an id and a pathPrefix")
			continue
		}
		dir, ok := t.roots.resolve(d.Prefix.s)
		if !ok {
			name := "AZ_BATCHAI_OUTPUT_" + d.ID.s
			t.prelude = append(t.prelude, "export "+name+"="+shellWord(d.Prefix.s+"/$SHOAL_JOB_ID/"+d.Suffix.s), `mkdir -p "$`+name+`"`)
			t.identifier(d.ID, at)
			t.note(d.Prefix.at, "output %s is on no share: it cannot be listed, and goes with the machine", d.ID.s)
			continue
		}
		if t.spec.Outputs == nil {
			t.spec.Outputs = map[string]shoal.OutputDir{}
		}
		t.spec.Outputs[d.ID.s] = shoal.OutputDir{Path: beneath(dir, d.Suffix.s)}
		t.places["outputs."+d.ID.s] = d.Prefix.at
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9_]{1,100}$`)

func (t *translation) identifier(id text, at string) {
	if !identifier.MatchString(id.s) {
		t.wrong(id.at, at+".id", "use letters, digits and _", "%q cannot be part of a variable", clip(id.s))
	}
}

// stdOutErr is the name of the output that holds what the job wrote.
const stdOutErr = "stdouterr"

// output has what the job writes copied to where the file wants it.
func (t *translation) output(prefix text, suffix string) {
	if prefix.s == "" {
		t.liberty(place{}, "properties.stdOutErrPathPrefix", "write $AZ_BATCHAI_JOB_MOUNT_ROOT/logs, for example", "no copy is made; `shoal job logs` shows the output",
			"the job does not say where its output goes")
		return
	}
	dir, ok := t.roots.resolve(prefix.s)
	if !ok {
		t.note(prefix.at, "stdOutErrPathPrefix is on no share: no copy is made; `shoal job logs` shows the output")
		return
	}
	if t.spec.Outputs == nil {
		t.spec.Outputs = map[string]shoal.OutputDir{}
	}
	if len(t.spec.Items) > 0 {
		suffix += "-%a"
	}
	t.spec.Outputs[stdOutErr] = shoal.OutputDir{Path: dir}
	t.spec.Stdout, t.spec.Stderr = beneath(dir, "%j/stdout"+suffix+".txt"), beneath(dir, "%j/stderr"+suffix+".txt")
	t.places["outputs."+stdOutErr], t.places["stdout"], t.places["stderr"] = prefix.at, prefix.at, prefix.at
}

// setRoots sets the variables for the two roots: to where all mounts are, or to a directory of links that
// the commands make.
func (t *translation) setRoots() {
	all, everything := t.options.Shares[Everything]
	switch {
	case len(t.roots.cluster) > 0:
		t.setRoot("AZ_BATCHAI_MOUNT_ROOT", "cluster", t.roots.cluster)
	case everything:
		t.spec.Env["AZ_BATCHAI_MOUNT_ROOT"] = all.String()
	default:
		t.spec.Env["AZ_BATCHAI_MOUNT_ROOT"] = ClusterRoot
	}
	switch {
	case len(t.roots.job) > 0:
		t.setRoot("AZ_BATCHAI_JOB_MOUNT_ROOT", "job", t.roots.job)
	case everything:
		t.spec.Env["AZ_BATCHAI_JOB_MOUNT_ROOT"] = all.String()
	}
}

func (t *translation) setRoot(name, dir string, known map[string]string) {
	if base, ok := common(known); ok {
		t.spec.Env[name] = base
		return
	}
	lines := []string{"export " + name + `="$SHOAL_SCRATCH/mounts/` + dir + `"`}
	for _, mount := range slices.Sorted(maps.Keys(known)) {
		lines = append(lines, "link "+shellWord(inShell(known[mount]))+" "+shellWord("$"+name+"/"+mount))
	}
	// Variables of the job that name the root are set once it is known.
	for _, key := range slices.Sorted(maps.Keys(t.spec.Env)) {
		if value := t.spec.Env[key]; strings.Contains(value, name) {
			lines = append(lines, "export "+key+"="+shellWord(value))
			delete(t.spec.Env, key)
		}
	}
	if len(t.links) == 0 {
		t.links = []string{linker}
	}
	t.links = append(t.links, lines...)
}

// linker is a function of the shell. Several processes of a node may call it at once.
const linker = `link() { [ -e "$2" ] || { mkdir -p "${2%/*}"; ln -s "$1" "$2" 2>/dev/null; }; }`

// check has our own rules look at what was made.
func (t *translation) check(whole place) {
	if t.found() {
		return // what is missing from the spec was said
	}
	for _, m := range spec.CheckJob(t.spec) {
		at, ok := t.places[m.Path]
		for path := m.Path; !ok && path != ""; at, ok = t.places[path] {
			path = path[:max(strings.LastIndexAny(path, ".["), 0)]
		}
		if !ok {
			at = whole
		}
		t.wrong(at, m.Path, m.Hint, "%s", m.Msg)
	}
}
