// Package settings reads flags from a file.
package settings

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Apply sets flags as a file says: a YAML mapping of their names to values, or to lists for those that may be
// repeated. What the command line says wins. Names in except cannot be set. All mistakes are told at once.
func Apply(fs *pflag.FlagSet, file spec.File, except ...string) error {
	all, err := spec.Settings(file)
	if err != nil {
		return err
	}
	var known []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(except, f.Name) {
			known = append(known, f.Name)
		}
	})
	var mistakes []shoal.Mistake
	for _, s := range all {
		wrong := func(hint, format string, args ...any) {
			mistakes = append(mistakes, shoal.Mistake{File: file.Name, Line: s.Line, Column: s.Column, Path: s.Key, Msg: fmt.Sprintf(format, args...), Hint: hint})
		}
		flag := fs.Lookup(s.Key)
		switch {
		case !slices.Contains(known, s.Key):
			wrong(spec.Suggest(s.Key, known), "there is no such setting")
			continue
		case flag.Changed:
			continue
		case len(s.Values) > 1 && flag.Value.Type() != "stringArray":
			wrong("", "this can be said once only")
			continue
		}
		for _, v := range s.Values {
			if err := flag.Value.Set(v); err != nil {
				wrong(shoal.HintOf(err), "%v", err)
			}
		}
	}
	if len(mistakes) > 0 {
		return spec.Invalid(mistakes)
	}
	return nil
}
