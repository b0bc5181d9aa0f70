package arm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

func is(err, what error) bool { return errors.Is(err, what) }

func asError(err error) (*expr.Error, bool) { return errors.AsType[*expr.Error](err) }

// Function finds a function that looks at the deployment, or one that the template declares.
func (s *scope) Function(name string) *expr.Function {
	r := s.frame.run
	if f, ok := r.functions[name]; ok {
		return f
	}
	if strings.HasPrefix(name, "list") && len(name) > 4 {
		return r.functions["list*"]
	}
	if c, ok := s.frame.owner().template.functions[name]; ok {
		return &expr.Function{Name: c.name, Min: len(c.parameters), Max: len(c.parameters), Own: true, Call: func(call *expr.Call) (*tree.Value, error) {
			return s.callCustom(c, call)
		}}
	}
	return nil
}

// Names are the functions that Function finds.
func (s *scope) Names() []string {
	var names []string
	for _, f := range s.frame.run.functions {
		names = append(names, f.Name)
	}
	for _, c := range s.frame.owner().template.functions {
		names = append(names, c.name)
	}
	return names
}

// callCustom calls a function that the template declares: it sees its own parameters and nothing else.
func (s *scope) callCustom(c *custom, call *expr.Call) (*tree.Value, error) {
	r := s.frame.run
	if r.calls++; r.calls > 32 {
		return nil, call.Wrong(-1, "", "functions of the template call each other deeper than 32 levels")
	}
	defer func() { r.calls-- }()
	args := map[string]*tree.Value{}
	for i, name := range c.parameters {
		args[tree.Fold(name)] = call.Args[i]
	}
	inner := &scope{frame: s.frame.owner(), phase: inVariables, path: "functions." + c.name, args: args}
	v, ok := inner.value(c.value)
	if !ok {
		return nil, errReported
	}
	return v, nil
}

// scopeFunctions are the functions that look at the deployment, by their names in small letters.
func (r *run) scopeFunctions() map[string]*expr.Function {
	table := map[string]*expr.Function{}
	add := func(name string, low, high int, call func(s *scope, c *expr.Call) (*tree.Value, error)) {
		table[tree.Fold(name)] = &expr.Function{Name: name, Min: low, Max: high, Own: true, Call: func(c *expr.Call) (*tree.Value, error) {
			return call(c.Scope().(*scope), c)
		}}
	}
	add("parameters", 1, 1, (*scope).callParameters)
	add("variables", 1, 1, (*scope).callVariables)
	add("copyIndex", 0, 2, (*scope).callCopyIndex)
	add("resourceId", 2, -1, func(s *scope, c *expr.Call) (*tree.Value, error) { return s.callID(c, atGroup) })
	add("subscriptionResourceId", 2, -1, func(s *scope, c *expr.Call) (*tree.Value, error) { return s.callID(c, atSubscription) })
	add("tenantResourceId", 2, -1, func(s *scope, c *expr.Call) (*tree.Value, error) { return s.callID(c, atTenant) })
	add("managementGroupResourceId", 2, -1, func(s *scope, c *expr.Call) (*tree.Value, error) { return s.callID(c, atTenant) })
	add("extensionResourceId", 3, -1, func(s *scope, c *expr.Call) (*tree.Value, error) { return s.callID(c, atResource) })
	add("reference", 1, 3, (*scope).callReference)
	add("references", 1, 2, (*scope).callReferences)
	add("list*", 1, 3, (*scope).callList)
	add("listKeys", 1, 3, (*scope).callList)
	add("providers", 1, 2, func(*scope, *expr.Call) (*tree.Value, error) {
		return tree.UnknownValue("what providers() tells"), nil
	})
	add("pickZones", 3, 5, func(*scope, *expr.Call) (*tree.Value, error) { return tree.ArrayValue(nil), nil })
	add("resourceGroup", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) { return s.frame.owner().context.group(), nil })
	add("subscription", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) { return s.frame.owner().context.subscription(), nil })
	add("tenant", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) {
		return object("tenantId", s.frame.context.Tenant, "id", "/tenants/"+s.frame.context.Tenant).Opened("tenant()"), nil
	})
	add("managementGroup", 0, 0, func(*scope, *expr.Call) (*tree.Value, error) {
		return object("name", "shoal", "id", "/providers/Microsoft.Management/managementGroups/shoal").Opened("managementGroup()"), nil
	})
	add("deployment", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) { return s.frame.owner().deployment(), nil })
	add("deployer", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) {
		return object("tenantId", s.frame.context.Tenant).Opened("deployer()"), nil
	})
	add("environment", 0, 0, func(*scope, *expr.Call) (*tree.Value, error) { return environment(), nil })
	add("utcNow", 0, 1, func(s *scope, c *expr.Call) (*tree.Value, error) {
		how := expr.Compact
		if len(c.Args) > 0 {
			text, err := c.Text(0)
			if err != nil {
				return nil, err
			}
			how = text
		}
		return tree.StringValue(expr.WriteTime(s.frame.context.Now.UTC(), how)), nil
	})
	add("newGuid", 0, 0, func(s *scope, _ *expr.Call) (*tree.Value, error) {
		r := s.frame.run
		r.guids++
		return tree.StringValue(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s %s %d", r.in.Seed, s.path, r.guids)).String()), nil
	})
	return table
}

// named is the name that a function is asked by: messages show it, so it cannot be a secret.
func named(c *expr.Call) (string, error) {
	if c.Args[0].Hides() {
		return "", c.Wrong(0, "", "%s cannot be asked by a secret", c.Name())
	}
	return c.Text(0)
}

func (s *scope) callParameters(c *expr.Call) (*tree.Value, error) {
	name, err := named(c)
	if err != nil {
		return nil, err
	}
	if s.args != nil {
		if v, ok := s.args[tree.Fold(name)]; ok {
			return v, nil
		}
		return nil, c.Wrong(0, "", "the function has no parameter %q", tree.Clip(name, 60))
	}
	return s.look(c, "parameters", name)
}

func (s *scope) callVariables(c *expr.Call) (*tree.Value, error) {
	name, err := named(c)
	if err != nil {
		return nil, err
	}
	if s.args != nil {
		return nil, c.Wrong(-1, "hand it in as a parameter", "a function of the template does not see its variables")
	}
	if s.phase == inDefaults {
		return nil, c.Wrong(-1, "", "the default of a parameter does not see variables")
	}
	return s.look(c, "variables", name)
}

func (s *scope) look(c *expr.Call, kind, name string) (*tree.Value, error) {
	owner := s.frame.owner()
	cells := owner.parameters
	if kind == "variables" {
		cells = owner.variables
	}
	cell, ok := cells[tree.Fold(name)]
	if !ok {
		e := missing(kind, name, 0, owner)
		return nil, c.Wrong(0, e.Hint, "%s", e.Msg)
	}
	return s.frame.run.ask(cell)
}

func (s *scope) callCopyIndex(c *expr.Call) (*tree.Value, error) {
	name, offset := "", int64(0)
	for i, a := range c.Args {
		if a.Kind == tree.String && i == 0 {
			text, err := named(c)
			if err != nil {
				return nil, err
			}
			name = text
			continue
		}
		n, err := c.Int(i)
		if err != nil {
			return nil, err
		}
		offset = n
	}
	if len(s.loops) == 0 {
		return nil, c.Wrong(-1, "", "there is no loop here, so copyIndex has no value")
	}
	var names []string
	for _, l := range slices.Backward(s.loops) {
		if name == "" && l.resource || name != "" && strings.EqualFold(l.name, name) {
			return tree.IntValue(l.index + offset), nil
		}
		names = append(names, l.name)
	}
	if name == "" {
		return tree.IntValue(s.loops[len(s.loops)-1].index + offset), nil
	}
	return nil, c.Wrong(0, spec.Suggest(name, names), "no loop around is called %q", tree.Clip(name, 60))
}

// object makes an object of names and strings.
func object(words ...string) *tree.Value {
	var members []tree.Member
	for i := 0; i < len(words); i += 2 {
		members = append(members, tree.Member{Name: words[i], Value: tree.StringValue(words[i+1])})
	}
	return tree.ObjectValue(members)
}

// with adds members to an object.
func with(v *tree.Value, members ...tree.Member) *tree.Value {
	return tree.ObjectValue(append(slices.Clone(v.Members()), members...))
}

func (c Context) subscription() *tree.Value {
	return object("id", "/subscriptions/"+c.Subscription, "subscriptionId", c.Subscription, "tenantId", c.Tenant, "displayName", "shoal").Opened("subscription()")
}

func (c Context) group() *tree.Value {
	v := object("id", "/subscriptions/"+c.Subscription+"/resourceGroups/"+c.Group, "name", c.Group, "type", "Microsoft.Resources/resourceGroups", "location", c.Location)
	return with(v, tree.Member{Name: "tags", Value: tree.ObjectValue(nil)},
		tree.Member{Name: "properties", Value: object("provisioningState", "Succeeded")}).Opened("resourceGroup()")
}

func (f *frame) deployment() *tree.Value {
	version := f.template.root.Get("contentVersion")
	if version == nil {
		version = tree.StringValue("1.0.0.0")
	}
	sum := sha256.Sum256([]byte(f.template.name + f.template.uri))
	properties := []tree.Member{
		{Name: "template", Value: tree.ObjectValue([]tree.Member{{Name: "contentVersion", Value: version}}).Opened("deployment().properties.template")},
		{Name: "templateHash", Value: tree.StringValue(hex.EncodeToString(sum[:8]))},
		{Name: "mode", Value: tree.StringValue("Incremental")},
		{Name: "provisioningState", Value: tree.StringValue("Accepted")},
	}
	if f.template.uri != "" {
		properties = append(properties, tree.Member{Name: "templateLink", Value: object("uri", f.template.uri).Opened("deployment().properties.templateLink")})
	}
	return with(object("name", f.context.Deployment, "location", f.context.Location), tree.Member{Name: "properties", Value: tree.ObjectValue(properties).Opened("deployment().properties")}).Opened("deployment()")
}

// environment is the public cloud, whose names templates build addresses from.
func environment() *tree.Value {
	suffixes := object("storage", "core.windows.net", "sqlServerHostname", ".database.windows.net", "keyvaultDns", ".vault.azure.net", "acrLoginServer", ".azurecr.io")
	return with(object("name", "AzureCloud", "portal", "https://portal.azure.com", "resourceManager", "https://management.azure.com/", "graph", "https://graph.windows.net/"),
		tree.Member{Name: "suffixes", Value: suffixes.Opened("environment().suffixes")},
		tree.Member{Name: "authentication", Value: object("loginEndpoint", "https://login.microsoftonline.com/", "tenant", "common").Opened("environment().authentication")}).Opened("environment()")
}
