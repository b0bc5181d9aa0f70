package translate

import (
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// Keys and what becomes of them: nothing is said where the text is empty, because they are understood or say
// nothing of their own.
var (
	bodyKeys = map[string]string{"sku": "", "properties": "", "location": "", "tags": "", "copy": "", "type": "",
		"plan": "images have no terms to agree to here", "zones": "a provider's machines are in one place", "identity": "machines have no identity towards a cloud",
		"resources": "", "scope": "", "kind": "", "managedby": ""}
	setKeys = map[string]string{"virtualmachineprofile": "", "overprovision": "as many machines are made as are wanted", "upgradepolicy": "new machines are made from the pool as it is then; `shoal machine drain` replaces one",
		"singleplacementgroup": "", "platformfaultdomaincount": "", "zonebalance": "", "orchestrationmode": "", "donotrunextensionsonoverprovisionedvms": "",
		"automaticrepairspolicy": "a machine that fails is replaced by itself", "scaleinpolicy": "the machine that is idle longest goes first, and none that is in use"}
	profileKeys = map[string]string{"storageprofile": "", "osprofile": "", "networkprofile": "", "extensionprofile": "", "priority": "", "evictionpolicy": "", "hardwareprofile": "",
		"diagnosticsprofile": "`shoal why machine ID` shows a machine's log", "licensetype": "licences are the provider's", "billingprofile": "`price` of the pool says what a machine costs",
		"scheduledeventsprofile": "users are warned before an idle machine stops", "securityprofile": "the provider's own"}
	machineKeys = map[string]string{"storageprofile": "", "osprofile": "", "networkprofile": "", "hardwareprofile": "", "priority": "", "evictionpolicy": "", "availabilityset": "a provider's machines are in one place",
		"diagnosticsprofile": "`shoal why machine ID` shows a machine's log", "licensetype": "licences are the provider's", "billingprofile": "`price` of the pool says what a machine costs",
		"proximityplacementgroup": "a provider's machines are in one place", "securityprofile": "the provider's own", "virtualmachinescaleset": "the machines are a pool of their own"}
	storageKeys = map[string]string{"imagereference": "", "osdisk": "", "datadisks": "machines have no disks of their own: data belongs on a share"}
	osKeys      = map[string]string{"adminusername": "", "adminpassword": "", "computername": "", "computernameprefix": "", "linuxconfiguration": "", "windowsconfiguration": "", "customdata": "",
		"secrets": "certificates of a key vault cannot be fetched from here", "allowextensionoperations": ""}
)

// unused tells keys that have no meaning here.
func (t *translation) unused(v *tree.Value, title string, known map[string]string) {
	for _, m := range v.Members() {
		says, ok := known[tree.Fold(m.Name)]
		switch {
		case !ok:
			t.note(m.At, "%s: %s has no meaning here and is left out", title, tree.Clip(m.Name, 60))
		case says != "" && !empty(m.Value):
			t.note(m.At, "%s: %s: %s", title, m.Name, says)
		}
	}
}

func empty(v *tree.Value) bool {
	return !v.Present() || (v.Kind == tree.Object || v.Kind == tree.Array) && v.Len() == 0
}

// sayings are what becomes of resources that have no meaning of their own here, by their type.
var sayings = map[string]string{
	"microsoft.network/virtualnetworks":                "machines of a pool have a network of their own",
	"microsoft.network/virtualnetworks/subnets":        "machines of a pool have a network of their own",
	"microsoft.network/publicipaddresses":              "people come in at the gateway's address",
	"microsoft.network/publicipprefixes":               "people come in at the gateway's address",
	"microsoft.network/networksecuritygroups":          "machines are reached through the gateway alone",
	"microsoft.network/networkinterfaces":              "machines of a pool have a network of their own",
	"microsoft.network/natgateways":                    "machines reach the network through their provider",
	"microsoft.network/routetables":                    "machines reach the network through their provider",
	"microsoft.network/loadbalancers/inboundnatrules":  "single machines are reached by name through ssh",
	"microsoft.network/loadbalancers":                  "it leads to no machine of the template",
	"microsoft.network/applicationgateways":            "web apps are endpoints of a pool, behind the gateway's https; its listeners and rules are left out",
	"microsoft.network/privatednszones":                "machines of a pool find each other by name",
	"microsoft.network/dnszones":                       "names are yours to point at the gateway",
	"microsoft.storage/storageaccounts":                "what is kept lies on a Share",
	"microsoft.compute/availabilitysets":               "a provider's machines are in one place",
	"microsoft.compute/proximityplacementgroups":       "a provider's machines are in one place",
	"microsoft.compute/disks":                          "machines have no disks of their own: data belongs on a Share",
	"microsoft.compute/images":                         "a pool's image is a directory, an archive or a reference; --image-map names it",
	"microsoft.insights/components":                    "`/metrics` of the server has the pool's numbers",
	"microsoft.operationalinsights/workspaces":         "`/metrics` of the server has the pool's numbers",
	"microsoft.operationsmanagement/solutions":         "`/metrics` of the server has the pool's numbers",
	"microsoft.insights/metricalerts":                  "`shoal events -f` tells what a pool does",
	"microsoft.insights/actiongroups":                  "`shoal events -f` tells what a pool does",
	"microsoft.insights/diagnosticsettings":            "`/metrics` of the server has the pool's numbers",
	"microsoft.authorization/roleassignments":          "who may do what are roles of Shoal's users",
	"microsoft.authorization/roledefinitions":          "who may do what are roles of Shoal's users",
	"microsoft.authorization/locks":                    "objects are removed by admins alone",
	"microsoft.managedidentity/userassignedidentities": "machines have no identity towards a cloud",
	"microsoft.keyvault/vaults":                        "secrets lie in Shoal's own store",
	"microsoft.keyvault/vaults/secrets":                "secrets lie in Shoal's own store",
	"microsoft.resources/deploymentscripts":            "scripts of a deployment are not run",
	"microsoft.resources/resourcegroups":               "-g names the group that objects carry as a label",
	"microsoft.automation/automationaccounts":          "runbooks are not run",
}

// rest tells every resource that nothing was made of.
func (t *translation) rest() {
	for i := range t.in.Resources {
		r := &t.in.Resources[i]
		if t.told[tree.Fold(r.ID)] {
			continue
		}
		says, ok := sayings[kind(r)]
		switch {
		case kind(r) == "microsoft.storage/storageaccounts/fileservices/shares" || kind(r) == "microsoft.storage/storageaccounts/shares":
			says = "a file share becomes a Share where a script mounts it, and none mounts this one"
			parts := strings.Split(r.Name, "/")
			for _, s := range t.out.Set.Shares {
				if s.Source == "azurefiles://"+parts[0]+"/"+parts[len(parts)-1] {
					t.note(r.At, "%s: it is share %q", r.Type+" "+tree.Clip(r.Name, 60), s.Name)
					says = ""
				}
			}
			if says == "" {
				continue
			}
		case !ok:
			says = "Shoal has nothing like it"
		}
		t.note(r.At, "%s: left out: %s", r.Type+" "+tree.Clip(r.Name, 60), says)
		t.details(r)
	}
}

// details tells what in a resource somebody may miss.
func (t *translation) details(r *arm.Resource) {
	v := r.Body.Get("properties")
	switch kind(r) {
	case "microsoft.network/publicipaddresses":
		if label := v.Get("dnsSettings", "domainNameLabel"); label.Present() {
			t.note(label.At, "%s: domainNameLabel %s: point a name of yours at the gateway", what(r), label.Show())
		}
	case "microsoft.network/networksecuritygroups":
		var ports []string
		for _, rule := range v.Get("securityRules").Items() {
			p := rule.Get("properties")
			if strings.EqualFold(p.Get("access").Tell(), "allow") && strings.EqualFold(p.Get("direction").Tell(), "inbound") {
				ports = append(ports, p.Get("destinationPortRange").Tell())
			}
		}
		if ports = slices.Compact(ports); len(ports) > 0 {
			t.note(v.Get("securityRules").At, "%s: it lets in ports %s; what the gateway listens at is its own to say", what(r), tree.Clip(strings.Join(ports, ", "), 100))
		}
	}
}
