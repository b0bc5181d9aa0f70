package slurm

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// sacctmgr answers which accounts a user may name, for programs that check before they submit: her groups, herself and the
// pools. Any other is accepted too when a job is submitted: an account is a label here.
func (c *command) sacctmgr(ctx context.Context, args []string) error {
	f := c.flags()
	noHeader := f.BoolP("noheader", "n", false, "")
	parsable := f.BoolP("parsable2", "P", false, "")
	for _, name := range []string{"associations/s", "readonly/r", "immediate/i", "parsable/p"} {
		full, short, _ := strings.Cut(name, "/")
		f.BoolP(full, short, false, "")
	}
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	words := f.Args()
	if len(words) < 2 || words[0] != "list" && words[0] != "show" || !matches([]string{"user", "users", "account", "accounts", "assoc", "association", "associations"}, words[1]) {
		return shoal.Errorf(shoal.KindInvalid, "cannot do `sacctmgr %s`", strings.Join(words, " ")).WithHint("there are `sacctmgr list user` and `sacctmgr list account`; users and groups are kept by `shoal user` and `shoal group`")
	}
	to, err := c.Connect()
	if err != nil {
		return err
	}
	me, err := c.user(ctx, to)
	if err != nil {
		return err
	}
	accounts := []string{string(me)}
	if u, err := to.User(ctx, me); err == nil {
		for _, g := range u.Groups {
			accounts = append(accounts, string(g))
		}
	} else if shoal.KindOf(err) != shoal.KindNotFound {
		return err
	}
	pools, err := to.Pools(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		accounts = append(accounts, string(p.Name))
	}
	fields := []string{"user%10", "account%10"}
	for _, w := range words[2:] {
		if list, ok := strings.CutPrefix(strings.ToLower(w), "format="); ok {
			fields = strings.Split(list, ",")
		}
	}
	line := func(cell func(field string) string) {
		var cells []string
		for _, field := range fields {
			name, width, _ := strings.Cut(field, "%")
			text := cell(name)
			if n, err := strconv.Atoi(width); err == nil && !*parsable && n < 1000 {
				text = fmt.Sprintf("%*s", n, text)
			}
			cells = append(cells, text)
		}
		between := " "
		if *parsable {
			between = "|"
		}
		c.say("%s", strings.Join(cells, between))
	}
	if !*noHeader {
		line(func(field string) string {
			return strings.ToUpper(field[:min(1, len(field))]) + field[min(1, len(field)):]
		})
	}
	for _, a := range accounts {
		line(func(field string) string {
			switch field {
			case "account", "defaultaccount":
				return a
			case "user":
				return string(me)
			}
			return ""
		})
	}
	return nil
}
