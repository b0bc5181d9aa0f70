package slurm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shoal-pool/shoal"
)

// unabbreviated completes long options that were cut short, which Slurm allows as long as only one is meant. What follows
// the first word of a command line that takes a script or a command is not the flags'.
func unabbreviated(f *pflag.FlagSet, args []string) []string {
	out := slices.Clone(args)
	for i := 0; i < len(out); i++ {
		word := out[i]
		switch {
		case word == "--":
			return out
		case !strings.HasPrefix(word, "-") || word == "-":
			if interspersed := f.Name() != "sbatch" && f.Name() != "srun"; !interspersed {
				return out
			}
			continue
		}
		name, value, given := strings.Cut(strings.TrimPrefix(word, "--"), "=")
		flag := f.ShorthandLookup(word[len(word)-1:])
		if strings.HasPrefix(word, "--") {
			if flag = f.Lookup(name); flag == nil {
				flag = meant(f, name)
			}
			if flag != nil && flag.Name != name {
				out[i] = "--" + flag.Name
				if given {
					out[i] += "=" + value
				}
			}
		}
		if flag != nil && flag.NoOptDefVal == "" && !given && (strings.HasPrefix(word, "--") || takesNext(f, word)) {
			i++
		}
	}
	return out
}

// meant is the only option that begins so.
func meant(f *pflag.FlagSet, name string) (only *pflag.Flag) {
	many := false
	f.VisitAll(func(o *pflag.Flag) {
		if strings.HasPrefix(o.Name, name) {
			many = many || only != nil
			only = o
		}
	})
	if many || name == "" {
		return nil
	}
	return only
}

// takesNext reports whether a word of short options, -n or -Jn, ends in one whose value is the next word.
func takesNext(f *pflag.FlagSet, word string) bool {
	for i := 1; i < len(word); i++ {
		o := f.ShorthandLookup(word[i : i+1])
		switch {
		case o == nil:
			return false
		case o.NoOptDefVal == "":
			return i == len(word)-1
		}
	}
	return false
}

// rising writes the indexes of an array, which Slurm takes in any order and several times, in ours.
func rising(list string) (string, error) {
	_, err := shoal.ParseArray(list)
	if err == nil {
		return list, nil
	}
	const most = 100_000 // what is written one by one
	var all []int
	for _, part := range words(list) {
		a, bad := shoal.ParseArray(part)
		if bad != nil || len(all)+a.Len() > most {
			return "", err
		}
		for p := range a.Len() {
			all = append(all, a.Index(p))
		}
	}
	slices.Sort(all)
	return ranges(slices.Compact(all)), nil
}

// ranges writes rising numbers as short as may be: 1,4-9,20-30:5.
func ranges(all []int) string {
	var parts []string
	for i := 0; i < len(all); {
		end := i + 1
		for end+1 < len(all) && all[end+1]-all[end] == all[i+1]-all[i] {
			end++
		}
		switch {
		case end >= len(all):
			end = i
			parts = append(parts, strconv.Itoa(all[i]))
		case all[end]-all[i] == end-i:
			parts = append(parts, fmt.Sprintf("%d-%d", all[i], all[end]))
		case end-i > 1:
			parts = append(parts, fmt.Sprintf("%d-%d:%d", all[i], all[end], all[i+1]-all[i]))
		default:
			end = i
			parts = append(parts, strconv.Itoa(all[i]))
		}
		i = end + 1
	}
	return strings.Join(parts, ",")
}
