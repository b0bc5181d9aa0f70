package tree

import (
	"bytes"
	"encoding/json"
	"strings"
)

// HiddenText is what stands for a secret wherever something is shown.
const HiddenText = "(secret)"

// MarshalJSON writes the value for others to read: HiddenText where something is secret, null where nothing is
// known. Check Weight first where a stranger's template made the value.
func (v *Value) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	v.write(&b, false, false)
	return b.Bytes(), nil
}

// Reveal writes the value with its secrets, without blanks.
func (v *Value) Reveal() string {
	var b bytes.Buffer
	v.write(&b, true, false)
	return b.String()
}

// Show writes the value for a message: short, without secrets.
func (v *Value) Show() string {
	const limit = 60
	if v == nil {
		return "nothing"
	}
	switch {
	case v.Secret:
		return HiddenText
	case v.Kind == Unknown || v.Weight() > 1<<16:
		return v.Kind.String()
	}
	var b bytes.Buffer
	v.write(&b, false, false)
	return Clip(b.String(), limit)
}

// Clip shortens foreign text for a message.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// write writes it with its secrets or without; sketch: with what stands for the unknown.
func (v *Value) write(b *bytes.Buffer, secrets, sketch bool) {
	if v.Secret && !secrets {
		quote(b, HiddenText)
		return
	}
	switch v.Kind {
	case Unknown:
		if sketch {
			quote(b, v.Sketch())
			return
		}
		b.WriteString("null")
	case Null:
		b.WriteString("null")
	case Bool:
		if v.Bool() {
			b.WriteString("true")
		} else {
			b.WriteString("false")
		}
	case Int, Float:
		b.WriteString(v.Text())
	case String:
		quote(b, v.text)
	case Array:
		b.WriteByte('[')
		for i, item := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b, secrets, sketch)
		}
		b.WriteByte(']')
	case Object:
		b.WriteByte('{')
		for i, m := range v.members {
			if i > 0 {
				b.WriteByte(',')
			}
			quote(b, m.Name)
			b.WriteByte(':')
			m.Value.write(b, secrets, sketch)
		}
		b.WriteByte('}')
	}
}

func quote(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if e.Encode(s) == nil { // a string always encodes
		b.Truncate(b.Len() - 1) // the end of the line
	}
}
