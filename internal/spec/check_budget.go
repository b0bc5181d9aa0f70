package spec

import "github.com/shoal-pool/shoal"

func (c *checks) budget(b shoal.Budget) {
	const like = "write `budget: {perMonth: 500, currency: EUR, stop: true}`"
	switch {
	case !finite(b.PerMonth) || b.PerMonth < 0 || b.PerMonth > 1e9:
		c.wrong("budget.perMonth", "", "%v cannot be a budget", b.PerMonth)
	case b.PerMonth == 0 && b != shoal.Budget{}:
		c.wrong("budget.perMonth", like, "the budget does not say how much it is")
	case b.PerMonth > 0 && b.Currency == "":
		c.wrong("budget.currency", like, "the budget has no currency")
	case b.Currency != "" && !currency.MatchString(b.Currency):
		c.wrong("budget.currency", "write EUR, for example", "%q is not a currency", clip(b.Currency))
	}
}
