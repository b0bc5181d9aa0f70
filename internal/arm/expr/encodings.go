package expr

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// encodings are the functions that write values in other ways, and hashes.
func encodings() []*Function {
	return []*Function{
		{Name: "base64", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.text(0)
			if err != nil {
				return nil, err
			}
			return tree.StringValue(base64.StdEncoding.EncodeToString([]byte(s))), nil
		}},
		{Name: "base64ToString", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.decoded(c.Args[0].Text())
			return tree.StringValue(s), err
		}},
		{Name: "base64ToJson", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.decoded(c.Args[0].Text())
			if err != nil {
				return nil, err
			}
			return c.json(s)
		}},
		{Name: "json", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			return c.json(s)
		}},
		{Name: "dataUri", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			if err := c.roomFor(c.Args[0].Weight() * 2); err != nil {
				return nil, err
			}
			kind := "text/plain"
			if k := c.Args[0].Kind; k != tree.String {
				kind = "application/json"
			}
			return tree.StringValue("data:" + kind + ";charset=utf8;base64," + base64.StdEncoding.EncodeToString([]byte(written(c.Args[0])))), nil
		}},
		{Name: "dataUriToString", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			head, body, ok := strings.Cut(s, ",")
			if !ok || !strings.HasPrefix(head, "data:") {
				return nil, c.Wrong(0, "it looks like data:text/plain;charset=utf8;base64,SGVsbG8=", "%s is no data URI", c.Args[0].Show())
			}
			if strings.HasSuffix(head, ";base64") {
				body, err = c.decoded(body)
			}
			return tree.StringValue(body), err
		}},
		{Name: "guid", Min: 1, Max: -1, Call: guid},
		{Name: "uniqueString", Min: 1, Max: -1, Call: unique},
	}
}

func (c *Call) decoded(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || !utf8.Valid(b) {
		return "", c.Wrong(0, "", "%s is no text in base64", c.Args[0].Show())
	}
	return string(b), nil
}

// json reads a value from a text. What json('null') gives is left out of resources.
func (c *Call) json(s string) (*tree.Value, error) {
	if err := c.Budget.take(int64(len(s)), int64(len(s))*64); err != nil {
		return nil, err
	}
	v, _, m := tree.Parse("", []byte(s))
	switch {
	case m != nil && c.Args[0].Hides():
		return nil, c.Wrong(0, "", "the text is not JSON")
	case m != nil:
		return nil, c.Wrong(0, m.Hint, "the text is not JSON: %s", m.Msg)
	}
	return v.Placed(tree.Place{}), nil
}

// joined are all arguments as one text, with something between them.
func (c *Call) joined(between string) (string, error) {
	var total int64
	for _, a := range c.Args {
		total += a.Weight()
	}
	if err := c.roomFor(total); err != nil {
		return "", err
	}
	parts := make([]string, len(c.Args))
	for i, a := range c.Args {
		parts[i] = written(a)
	}
	return strings.Join(parts, between), nil
}

// guid is a UUID of version 5 within a namespace that the language's documentation names.
func guid(c *Call) (*tree.Value, error) {
	s, err := c.joined("-")
	if err != nil {
		return nil, err
	}
	namespace := uuid.UUID{0x11, 0xfb, 0x06, 0xfb, 0x71, 0x2d, 0x4d, 0xdd, 0x98, 0xc7, 0xe7, 0x1b, 0xbd, 0x58, 0x88, 0x30}
	return tree.StringValue(uuid.NewSHA1(namespace, []byte(s)).String()), nil
}

// unique is a name of 13 letters and digits that depends on the arguments alone. Its algorithm was never
// documented: ours gives other names than the old services did, and begins with a letter.
func unique(c *Call) (*tree.Value, error) {
	s, err := c.joined("\x00")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(s))
	name := []byte(strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:13])
	name[0] = 'a' + sum[31]%26
	return tree.StringValue(string(name)), nil
}
