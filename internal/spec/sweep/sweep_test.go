package sweep_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

func read(t *testing.T, text string) (s sweep.Sweep) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func glob(pattern string) ([]string, error) {
	if pattern == "bad" {
		return nil, errors.New("no such directory")
	}
	if pattern == "none" {
		return nil, nil
	}
	return []string{"a.csv", "b c.csv"}, nil
}

func lines(items []shoal.Item) string {
	var b strings.Builder
	for _, i := range items {
		fmt.Fprintln(&b, string(i))
	}
	return b.String()
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{"1": "1", "-2": "-2", "1.50": "1.5", "1e3": "1000", ".5": "0.5", "+3": "3", "0": "0", "0.5": "0.5", "true": "true", "yes": `"yes"`,
		"": `""`, "nan": `"nan"`, "1e999": `"1e999"`, "0x1p4": `"0x1p4"`, "1_000": `"1_000"`, "007": `"007"`, "-01": `"-01"`, "00.5": `"00.5"`,
		"9007199254740993": "9007199254740993", "-20240101123456789": "-20240101123456789"} {
		if got, err := json.Marshal(sweep.Plain(written)); string(got) != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", written, got, err, want)
		}
	}
}

func TestGrid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{"parameters":{"B":[1,"x",true],"A":{"values":[0.5]}}}`, "{\"A\":0.5,\"B\":1}\n{\"A\":0.5,\"B\":\"x\"}\n{\"A\":0.5,\"B\":true}\n"},
		{`{"parameters":{"LR":{"from":0.0001,"to":0.1,"scale":"log","count":4}}}`, "{\"LR\":0.0001}\n{\"LR\":0.001}\n{\"LR\":0.01}\n{\"LR\":0.1}\n"},
		{`{"parameters":{"X":{"from":0,"to":0.3,"step":0.1}}}`, "{\"X\":0}\n{\"X\":0.1}\n{\"X\":0.2}\n{\"X\":0.3}\n"},
		{`{"parameters":{"N":{"from":1,"to":3,"count":5,"integer":true}}}`, "{\"N\":1}\n{\"N\":2}\n{\"N\":3}\n"}, // each whole number once
		{`{"parameters":{"S":[{"w":1,"d":"a"},{"d":"b","w":2}]}}`, "{\"S__d\":\"a\",\"S__w\":1}\n{\"S__d\":\"b\",\"S__w\":2}\n"},
		{`{"parameters":{"F":{"files":"*.csv","prefix":"/shared/"}}}`, "{\"F\":\"/shared/a.csv\"}\n{\"F\":\"/shared/b c.csv\"}\n"},
		{`{"parameters":{"A":[1,2],"B":[3,4]}}`, "{\"A\":1,\"B\":3}\n{\"A\":1,\"B\":4}\n{\"A\":2,\"B\":3}\n{\"A\":2,\"B\":4}\n"},
	} {
		items, mistakes := read(t, tt.text).Items(glob)
		if diff := cmp.Diff(tt.want, lines(items)); diff != "" || len(mistakes) > 0 {
			t.Errorf("%s: %v\n%s", tt.text, mistakes, diff)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, path, msg string }{
		{`{}`, "parameters", "no parameters"},
		{`{"search":"bayes","parameters":{"A":[1]}}`, "search", "no way to search"},
		{`{"search":"random","parameters":{"A":[1]}}`, "count", "how many to draw"},
		{`{"count":3,"parameters":{"A":[1,2],"B":[1,2]}}`, "count", "4 combinations, more than 3"},
		{`{"parameters":{"A":{"from":1,"to":2}}}`, "parameters.A", "how many values"},
		{`{"parameters":{"A":{"from":2,"to":1,"count":2}}}`, "parameters.A.to", "ends before"},
		{`{"parameters":{"A":{"from":0,"to":1,"count":2,"scale":"log"}}}`, "parameters.A.from", "above 0"},
		{`{"parameters":{"A":{"from":0,"to":1,"step":1e-9}}}`, "parameters.A.step", "more than"},
		{`{"parameters":{"A":{"from":0,"to":1,"count":2,"sclae":"log"}}}`, "parameters.A.sclae", "unknown key"},
		{`{"parameters":{"A":{"from":"x","to":1,"count":2}}}`, "parameters.A.from", "a number"},
		{`{"parameters":{"A":[]}}`, "parameters.A", "no values"},
		{`{"parameters":{"A":[[1]]}}`, "parameters.A", "a value is"},
		{`{"parameters":{"A":[{"a":1},{"b":1}]}}`, "parameters.A", "same keys"},
		{`{"parameters":{"A":[{"a":1},1]}}`, "parameters.A", "mixed"},
		{`{"parameters":{"A B":[1]}}`, "parameters.A B", "name of a parameter"},
		{`{"parameters":{"A":7}}`, "parameters.A", "a list of values"},
		{`{"parameters":{"A":{"files":"none"}}}`, "parameters.A.files", "no file matches"},
		{`{"parameters":{"A":{"files":"bad"}}}`, "parameters.A.files", "no such directory"},
	} {
		items, mistakes := read(t, tt.text).Items(glob)
		if len(mistakes) != 1 || mistakes[0].Path != tt.path || !strings.Contains(mistakes[0].Msg, tt.msg) || items != nil {
			t.Errorf("%s: got %+v", tt.text, mistakes)
		}
	}
	many := sweep.Sweep{Parameters: map[string]any{}}
	for _, name := range []string{"A", "B", "C", "D"} {
		many.Parameters[name] = map[string]any{"from": 0.0, "to": 1.0, "count": 1000.0}
	}
	if _, mistakes := many.Items(nil); len(mistakes) != 1 || !strings.Contains(mistakes[0].Msg, "more than 100000 combinations") {
		t.Errorf("got %+v", mistakes)
	}
}

// A seed draws the same each time, another seed something else, and all within the range.
func TestRandom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Float64Range(1e-6, 10).Draw(t, "from")
		to := from + rapid.Float64Range(1e-3, 100).Draw(t, "width")
		s := sweep.Sweep{Search: sweep.Random, Count: rapid.IntRange(1, 50).Draw(t, "count"), Seed: rapid.IntRange(0, 1000).Draw(t, "seed"),
			Parameters: map[string]any{"X": map[string]any{"from": from, "to": to, "scale": rapid.SampledFrom([]string{"linear", "log"}).Draw(t, "scale")}, "Y": []any{"a", "b"}}}
		items, mistakes := s.Items(nil)
		again, _ := s.Items(nil)
		if len(mistakes) > 0 || len(items) != s.Count || lines(items) != lines(again) {
			t.Fatalf("%v, %d items of %d", mistakes, len(items), s.Count)
		}
		for _, i := range items {
			var v struct {
				X float64
				Y string
			}
			if err := json.Unmarshal(i, &v); err != nil || v.X < from*(1-1e-9) || v.X > to*(1+1e-9) || v.Y != "a" && v.Y != "b" {
				t.Fatalf("%s: %v", i, err)
			}
		}
	})
	a, _ := sweep.Sweep{Search: sweep.Random, Count: 5, Parameters: map[string]any{"X": map[string]any{"from": 0.0, "to": 1.0}}}.Items(nil)
	b, _ := sweep.Sweep{Search: sweep.Random, Count: 5, Seed: 1, Parameters: map[string]any{"X": map[string]any{"from": 0.0, "to": 1.0}}}.Items(nil)
	if lines(a) == lines(b) {
		t.Error("two seeds draw the same")
	}
}

func TestFactory(t *testing.T) {
	t.Parallel()
	var f sweep.Factory
	text := `{"params":[{"parameterName":"LR","paramType":"NumParam","dataType":"REAL","start":0.01,"end":1,"scale":"LOG","numValues":3},
		{"parameter_name":"MODE","paramType":"DictParam","values":[{"a":1},{"a":2}]}]}`
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	s, mistakes := f.Sweep(false)
	items, more := s.Items(nil)
	if len(items) != 6 || len(mistakes)+len(more) > 0 || string(items[0]) != `{"LR":0.01,"MODE__a":1}` {
		t.Errorf("%s %v %v", lines(items), mistakes, more)
	}
	s, _ = f.Sweep(true)
	s.Search, s.Count = sweep.Random, 3
	if items, mistakes := s.Items(nil); len(items) != 3 || len(mistakes) > 0 || strings.Contains(lines(items), "\"LR\":0.1,") {
		t.Errorf("%s %v", lines(items), mistakes)
	}
	if _, mistakes := (sweep.Factory{Params: []sweep.FactoryParameter{{Name: "F", Type: "FileParam"}, {Name: "X", Type: "Param"}}}).Sweep(false); len(mistakes) != 2 {
		t.Errorf("got %+v", mistakes)
	}
}

func FuzzItems(f *testing.F) {
	f.Add([]byte(`{"search":"random","count":3,"parameters":{"A":{"from":0,"to":1},"B":[{"a":1}],"C":{"files":"x"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s sweep.Sweep
		if json.Unmarshal(text, &s) != nil {
			return
		}
		items, mistakes := s.Items(glob)
		if (len(items) == 0) == (len(mistakes) == 0) {
			t.Fatalf("%d items and %d mistakes", len(items), len(mistakes))
		}
		for _, i := range items {
			if !json.Valid(i) {
				t.Fatalf("%s is not JSON", i)
			}
		}
	})
}
