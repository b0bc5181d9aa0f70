package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "%s takes no %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// takes checks the number of arguments against their names, as in takes("ID", "[PATH]").
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return usage(cmd, "%s needs %s", cmd.CommandPath(), name)
			}
			if i < len(args) && args[i] == "" {
				return usage(cmd, "the %s is empty", strings.Trim(name, "[]"))
			}
		}
		if len(args) > len(names) {
			return usage(cmd, "%s does not take %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// plain says what is wrong with a flag's number in words for people; other mistakes stay as they are.
func plain(err error) error {
	bad, ofValue := errors.AsType[*pflag.InvalidValueError](err)
	number, ofNumber := errors.AsType[*strconv.NumError](err)
	if !ofValue || !ofNumber {
		return err
	}
	want := "write a whole number"
	switch {
	case number.Func == "ParseBool":
		want = "write true or false"
	case errors.Is(number, strconv.ErrRange):
		want = "it is out of range"
	}
	return fmt.Errorf("invalid argument %q for \"--%s\" flag: %s", bad.GetValue(), bad.GetFlag().Name, want)
}
