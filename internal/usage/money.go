package usage

import (
	"math"
	"strconv"
)

// Money writes an amount with two decimals, or as many as it takes to show what little it is: 12.50, 0.0012.
func Money(amount float64) string {
	decimals := 2
	if small := math.Abs(amount); small > 0 && small < 0.1 {
		decimals = min(1-int(math.Floor(math.Log10(small))), 9)
	}
	return strconv.FormatFloat(amount, 'f', decimals, 64)
}

// Exact writes an amount as somebody has set it: 500, 0.001.
func Exact(amount float64) string { return strconv.FormatFloat(amount, 'f', -1, 64) }

// billionths rounds to nine decimals, the most that Money writes: 0.1+0.2 is 0.3, and what is rounded adds up.
func billionths(x float64) float64 { return math.Round(x*1e9) / 1e9 }
