package expr

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// format fills {0}, {1,5} and {2:D3} in a text.
func format(c *Call) (*tree.Value, error) {
	s, err := c.plain(0)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		if i+1 < len(s) && s[i+1] == s[i] {
			b.WriteByte(s[i])
			s = s[i+2:]
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if s[i] == '}' || end < 0 {
			return nil, c.Wrong(0, "write {{ or }} for a brace in the text", "a brace has no partner in the format")
		}
		piece, err := c.hole(s[i+1 : i+end])
		if err != nil {
			return nil, err
		}
		if err := c.roomFor(int64(b.Len() + len(piece))); err != nil {
			return nil, err
		}
		b.WriteString(piece)
		s = s[i+end+1:]
	}
	return tree.StringValue(b.String()), nil
}

// hole fills "0", "0,-8" or "0:D3".
func (c *Call) hole(spec string) (string, error) {
	rest, how, _ := strings.Cut(spec, ":")
	number, width, aligned := strings.Cut(rest, ",")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 || n >= len(c.Args)-1 {
		return "", c.Wrong(0, "the first one is {0}", "{%s} names none of the %d values", tree.Clip(spec, 20), len(c.Args)-1)
	}
	v := c.Args[n+1]
	if err := c.roomFor(v.Weight()); err != nil {
		return "", err
	}
	s := written(v)
	if how != "" && (v.Kind == tree.Int || v.Kind == tree.Float) {
		s, err = c.numeral(v, how)
		if err != nil {
			return "", err
		}
	}
	if aligned {
		w, err := strconv.Atoi(strings.TrimSpace(width))
		if err != nil || w > 1000 || w < -1000 {
			return "", c.Wrong(0, "", "{%s} has no width of at most 1000", tree.Clip(spec, 20))
		}
		blanks := strings.Repeat(" ", max(max(w, -w)-utf8.RuneCountInString(s), 0))
		if w < 0 {
			return s + blanks, nil
		}
		return blanks + s, nil
	}
	return s, nil
}

// numeral writes a number: D3, X2, F1, N0, or zeros that say how many digits there are.
func (c *Call) numeral(v *tree.Value, how string) (string, error) {
	unreadable := c.Wrong(0, "there are: D3, X2, F1, N0, 000", "%q is no format of a number", tree.Clip(how, 20))
	if strings.Trim(how, "0") == "" && len(how) <= 100 {
		how = "D" + strconv.Itoa(len(how))
	}
	digits := -1
	if len(how) > 1 {
		n, err := strconv.Atoi(how[1:])
		if err != nil || n < 0 || n > 100 {
			return "", unreadable
		}
		digits = n
	}
	whole, isWhole := v.AsInt()
	sign, s := "", ""
	switch how[0] {
	case 'D', 'd', 'X', 'x':
		if !isWhole {
			return "", unreadable
		}
		switch how[0] {
		case 'X':
			s = strings.ToUpper(strconv.FormatUint(uint64(whole), 16))
		case 'x':
			s = strconv.FormatUint(uint64(whole), 16)
		default:
			s = strconv.FormatInt(whole, 10)
			if s[0] == '-' {
				sign, s = "-", s[1:]
			}
		}
		return sign + strings.Repeat("0", max(digits-len(s), 0)) + s, nil
	case 'F', 'f', 'N', 'n':
		if digits < 0 {
			digits = 2
		}
		s = strconv.FormatFloat(v.Float(), 'f', digits, 64)
		if how[0] == 'F' || how[0] == 'f' {
			return s, nil
		}
		if s[0] == '-' {
			sign, s = "-", s[1:]
		}
		return sign + grouped(s), nil
	case 'G', 'g':
		return v.Text(), nil
	}
	return "", unreadable
}

// grouped puts commas between thousands.
func grouped(s string) string {
	whole, fraction, ok := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if ok {
		return whole + "." + fraction
	}
	return whole
}
