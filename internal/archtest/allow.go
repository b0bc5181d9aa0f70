package archtest

import (
	"fmt"
	"strings"
)

// Allowance lets one finding pass, and says why.
type Allowance struct {
	Rule, Place, Reason string
}

// ReadAllowances reads lines of the form "rule place — reason". Empty lines and those beginning with # are skipped.
func ReadAllowances(text string) ([]Allowance, error) {
	var list []Allowance
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		what, reason, _ := strings.Cut(line, " — ")
		rule, place, ok := strings.Cut(strings.TrimSpace(what), " ")
		if !ok || len(strings.TrimSpace(reason)) < 10 {
			return nil, fmt.Errorf("cannot read line %d: it is not \"rule place — reason\" with a reason that says something", n+1)
		}
		list = append(list, Allowance{rule, strings.TrimSpace(place), strings.TrimSpace(reason)})
	}
	return list, nil
}

// Subtract returns the findings that nothing allows, and the allowances that allow nothing.
func Subtract(all []Finding, allowed []Allowance) (left []Finding, idle []Allowance) {
	used := make([]bool, len(allowed))
	for _, f := range all {
		pass := false
		for i, a := range allowed {
			if a.Rule == f.Rule && a.Place == f.Place {
				used[i], pass = true, true
			}
		}
		if !pass {
			left = append(left, f)
		}
	}
	for i, a := range allowed {
		if !used[i] {
			idle = append(idle, a)
		}
	}
	return left, idle
}
