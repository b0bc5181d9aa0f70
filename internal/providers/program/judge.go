package program

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

// machineID is what machines are called by whoever makes their names.
var machineID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// longestText bounds what a program says in sentences, and longestName its names for things.
const (
	longestText = 400
	longestName = 200
)

// judge reads a list of machines. One that cannot be true is refused as a whole.
func judge(list []wire.Observed, installation string) ([]provider.Observed, error) {
	var out []provider.Observed
	ids, places, addresses := map[shoal.MachineID]bool{}, map[string]shoal.MachineID{}, map[string]shoal.MachineID{}
	for _, o := range list {
		if o.Installation != installation {
			continue
		}
		if err := possible(o); err != nil {
			return nil, err
		}
		if ids[o.ID] {
			return nil, fmt.Errorf("machine %s is listed twice", o.ID)
		}
		ids[o.ID] = true
		if other, taken := places[o.ProviderID]; taken && o.ProviderID != "" {
			return nil, fmt.Errorf("machines %s and %s are both %s", other, o.ID, quote(o.ProviderID))
		}
		places[o.ProviderID] = o.ID
		if o.Phase == provider.PhaseRunning && o.Address != "" {
			if other, taken := addresses[o.Address]; taken {
				return nil, fmt.Errorf("machines %s and %s both run at %s", other, o.ID, o.Address)
			}
			addresses[o.Address] = o.ID
		}
		seen := o.Seam()
		seen.Reason, seen.Outdated, seen.Trouble = clean(seen.Reason), clean(seen.Outdated), clean(seen.Trouble)
		out = append(out, seen)
	}
	return out, nil
}

// possible says what is wrong with one machine.
func possible(o wire.Observed) error {
	phases := []provider.Phase{provider.PhaseCreating, provider.PhaseRunning, provider.PhaseStopping, provider.PhaseStopped, provider.PhaseFailed, provider.PhaseUnknown}
	switch {
	case !machineID.MatchString(string(o.ID)):
		return fmt.Errorf("%s cannot be the id of a machine", quote(string(o.ID)))
	case !slices.Contains(phases, o.Phase):
		return fmt.Errorf("machine %s is in phase %s, which does not exist", o.ID, quote(string(o.Phase)))
	case o.Pool == "" || len(o.Pool) > longestName:
		return fmt.Errorf("machine %s is of pool %s", o.ID, quote(string(o.Pool)))
	case len(o.ProviderID) > longestName || strings.ContainsFunc(o.ProviderID, unicode.IsControl):
		return fmt.Errorf("machine %s is called %s", o.ID, quote(o.ProviderID))
	case o.Address != "" && !reachable(o.Address):
		return fmt.Errorf("machine %s is at %s, which is no HOST:PORT", o.ID, quote(o.Address))
	}
	return nil
}

// reachable reports whether an address can be dialled.
func reachable(address string) bool {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && n > 0 && host != "" && len(host) < longestName && !strings.ContainsFunc(host, func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || r == '/'
	})
}

// clean makes one short line of what a program said, fit for a terminal.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > longestText {
		s = string(r[:longestText]) + "…"
	}
	return s
}

// quote shows what was said where something else should have been.
func quote(s string) string {
	const most = 80
	s = clean(s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}
