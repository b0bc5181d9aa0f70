package expr_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// alone is a scope with a secret and something unknown, and else nothing.
type alone struct{}

func (alone) Function(name string) *expr.Function {
	switch name {
	case "secret":
		return &expr.Function{Name: "secret", Own: true, Call: func(*expr.Call) (*tree.Value, error) {
			return tree.StringValue("hush").Hidden(), nil
		}}
	case "later":
		return &expr.Function{Name: "later", Own: true, Call: func(*expr.Call) (*tree.Value, error) {
			return tree.UnknownValue("later"), nil
		}}
	case "open":
		return &expr.Function{Name: "open", Own: true, Call: func(*expr.Call) (*tree.Value, error) {
			return tree.ObjectValue([]tree.Member{{Name: "a", Value: tree.ObjectValue(nil)}}).Opened("open()"), nil
		}}
	}
	return nil
}

func (alone) Names() []string { return []string{"secret", "later", "open"} }

func eval(s string) (*tree.Value, error) {
	n, err := expr.Parse("[" + s + "]")
	if err != nil {
		return nil, err
	}
	return n.Eval(alone{}, expr.NewBudget())
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		// literals, access, case
		{"'it''s'", `"it's"`}, {"-3", "-3"}, {"  'x'  ", `"x"`}, {"CONCAT('a', 1, true())", `"a1True"`},
		{"createObject('a', createArray(1, 2)).A[1]", "2"}, {"createObject('a', 1)['a']", "1"}, {"createObject().?b", "null"},
		{"createArray(1)[?5]", "null"}, {"createObject('a-b', 1).a-b", "1"}, {"concat ( 'a' ,\n 'b' )", `"ab"`},
		// arrays and objects
		{"concat(createArray(1), createArray('a'))", `[1,"a"]`}, {"array('a')", `["a"]`}, {"array(createArray())", "[]"},
		{"length('été')", "3"}, {"length(createArray(1, 2))", "2"}, {"length(createObject('a', 1))", "1"},
		{"empty('')", "true"}, {"empty(createArray(1))", "false"}, {"empty(null())", "true"},
		{"contains('OneTwo', 'One')", "true"}, {"contains('OneTwo', 'one')", "false"}, {"contains(createArray('a'), 'a')", "true"}, {"contains(createObject('Key', 1), 'key')", "true"},
		{"first('abc')", `"a"`}, {"last(createArray(1, 2))", "2"}, {"first(createArray())", "null"},
		{"take('abc', 2)", `"ab"`}, {"take(createArray(1, 2), 9)", "[1,2]"}, {"skip('abc', 1)", `"bc"`}, {"skip(createArray(1), 3)", "[]"}, {"take('abc', -1)", `""`},
		{"range(3, 3)", "[3,4,5]"}, {"union(createArray(1, 2), createArray(2, 3))", "[1,2,3]"},
		{"union(createObject('a', createObject('x', 1), 'b', 1), createObject('A', createObject('y', 2)))", `{"a":{"x":1,"y":2},"b":1}`},
		{"intersection(createArray(1, 2), createArray(2, 3))", "[2]"}, {"intersection(createObject('a', 1, 'b', 2), createObject('b', 2, 'a', 3))", `{"b":2}`},
		{"flatten(createArray(createArray(1), createArray(2, 3)))", "[1,2,3]"}, {"items(createObject('b', 1, 'a', 2))", `[{"key":"a","value":2},{"key":"b","value":1}]`},
		{"objectKeys(createObject('b', 1, 'a', 2))", `["a","b"]`}, {"tryGet(createObject('a', createArray(7)), 'a', 0)", "7"}, {"tryGet(createObject(), 'a', 'b')", "null"},
		{"shallowMerge(createArray(createObject('a', 1), createObject('a', 2)))", `{"a":2}`},
		{"min(createArray(3, 1))", "1"}, {"max(3, 1, 5)", "5"},
		// logic and numbers
		{"if(equals('a', 'a'), 1, div(1, 0))", "1"}, {"and(true(), false())", "false"}, {"or(true(), bool('nonsense'))", "true"}, {"not(false())", "true"}, {"xor(true(), true())", "false"},
		{"bool('True')", "true"}, {"bool(1)", "true"}, {"coalesce(null(), 'x', div(1, 0))", `"x"`}, {"equals('a', 'A')", "false"}, {"equals(1, int('1'))", "true"},
		{"equals(createObject('a', 1), createObject('A', 1))", "true"}, {"less(1, 2)", "true"}, {"greaterOrEquals('b', 'a')", "true"},
		{"add(1, 2)", "3"}, {"sub(1, 2)", "-1"}, {"mul(3, 4)", "12"}, {"div(7, 2)", "3"}, {"mod(7, 3)", "1"}, {"int('42')", "42"}, {"float('1.5')", "1.5"}, {"add('1', 2)", "3"},
		// strings
		{"format('{0}-{1:D3}-{{x}}', 'a', 7)", `"a-007-{x}"`}, {"format('{0,5}|{0,-5}|', 'a')", `"    a|a    |"`}, {"format('{0:N0} {0:X} {0:000000}', 12345)", `"12,345 3039 012345"`},
		{"join(createArray('a', 1), '-')", `"a-1"`}, {"padLeft('7', 3, '0')", `"007"`}, {"padLeft(42, 4)", `"  42"`}, {"replace('a-b-c', '-', '')", `"abc"`},
		{"split('a,b;c', createArray(',', ';'))", `["a","b","c"]`}, {"split('a.b', '.')", `["a","b"]`}, {"substring('abcdef', 1, 2)", `"bc"`}, {"substring('abc', 1)", `"bc"`},
		{"toLower('AB')", `"ab"`}, {"toUpper('ab')", `"AB"`}, {"trim('  a ')", `"a"`}, {"startsWith('abcdef', 'AB')", "true"}, {"endsWith('abcdef', 'EF')", "true"},
		{"indexOf('test', 'T')", "0"}, {"lastIndexOf('test', 't')", "3"}, {"indexOf('abc', 'x')", "-1"}, {"indexOf(createArray('a', 'b'), 'b')", "1"},
		{"string(createObject('a', true()))", `"{\"a\":true}"`}, {"string(false())", `"False"`}, {"string(3)", `"3"`},
		{"uri('http://contoso.org/firstpath/azuredeploy.json', 'myscript.sh')", `"http://contoso.org/firstpath/myscript.sh"`}, {"uri('http://contoso.org/a/', 'b.sh')", `"http://contoso.org/a/b.sh"`},
		{"uriComponent('a b/ü')", `"a%20b%2F%C3%BC"`}, {"uriComponentToString('a%20b')", `"a b"`},
		// encodings
		{"base64('one, two')", `"b25lLCB0d28="`}, {"base64ToString('b25lLCB0d28=')", `"one, two"`}, {"base64ToJson(base64('{\"a\": 1}')).a", "1"},
		{"json('null')", "null"}, {"json('{\"a\": [1]}').a[0]", "1"}, {"dataUri('Hello')", `"data:text/plain;charset=utf8;base64,SGVsbG8="`}, {"dataUriToString('data:;base64,SGVsbG8=')", `"Hello"`},
		{"equals(uniqueString('a'), uniqueString('a'))", "true"}, {"equals(uniqueString('a', 'b'), uniqueString('ab'))", "false"}, {"length(uniqueString('x'))", "13"},
		// dates
		{"dateTimeAdd('2020-04-07 14:53:14Z', '-P9D')", `"2020-03-29 14:53:14Z"`}, {"dateTimeAdd('20200407T145314Z', 'PT1H', 'yyyy-MM-dd HH:mm')", `"2020-04-07 15:53"`},
		{"dateTimeToEpoch('1970-01-02T00:00:00Z')", "86400"}, {"dateTimeFromEpoch(86400)", `"1970-01-02T00:00:00Z"`}, {"dateTimeAdd('2020-01-31T00:00:00Z', 'P1M', 'd MMM yy, H tt \\h')", `"1 Mar 20, 0 AM h"`}, {"dateTimeAdd('2024-01-01T00:00:00Z', 'P1Y')", `"2024-12-31T00:00:00Z"`}, {"dateTimeAdd('2023-03-01T00:00:00Z', '-P1M')", `"2023-01-30T00:00:00Z"`},
		// addresses
		{"cidrSubnet('10.144.0.0/20', 24, 3)", `"10.144.3.0/24"`}, {"cidrHost('10.144.3.0/24', 0)", `"10.144.3.1"`}, {"parseCidr('10.144.0.0/20').broadcast", `"10.144.15.255"`}, {"parseCidr('10.144.0.0/20').netmask", `"255.255.240.0"`},
		{"parseCidr('10.0.0.0/24').lastUsable", `"10.0.0.254"`}, {"cidrSubnet('fd00::/56', 64, 2)", `"fd00:0:0:2::/64"`}, {"cidrHost('fd00::/64', 1)", `"fd00::1"`},
		// lambdas
		{"map(range(0, 3), lambda('x', add(lambdaVariables('x'), 1)))", "[1,2,3]"}, {"filter(createArray(1, 5), lambda('x', greater(lambdaVariables('X'), 2)))", "[5]"},
		{"sort(createArray(3, 1, 2), lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b'))))", "[1,2,3]"},
		{"reduce(createArray(1, 2, 3), 0, lambda('sum', 'x', add(lambdaVariables('sum'), lambdaVariables('x'))))", "6"},
		{"toObject(createArray('a', 'b'), lambda('x', lambdaVariables('x')), lambda('x', 1))", `{"a":1,"b":1}`}, {"groupBy(createArray('a', 'bb', 'c'), lambda('x', string(length(lambdaVariables('x')))))", `{"1":["a","c"],"2":["bb"]}`},
		{"mapValues(createObject('a', 1), lambda('x', mul(lambdaVariables('x'), 2)))", `{"a":2}`},
		// secrets and what is not known
		{"concat('x', secret())", `"(secret)"`}, {"base64(secret())", `"(secret)"`}, {"length(secret())", "4"}, {"empty(secret())", "false"}, {"createObject('a', secret(), 'b', 1)", `{"a":"(secret)","b":1}`},
		{"string(createArray(secret()))", `"(secret)"`}, {"createObject('a', secret()).a", `"(secret)"`}, {"if(equals(secret(), 'hush'), 'yes', 'no')", `"yes"`}, {"split(secret(), 'u')", `["(secret)","(secret)"]`},
		{"createArray(later(), 1)[1]", "1"}, {"length(createArray(later()))", "1"}, {"open().a.b.c[3]", "null"}, {"open().a", "{}"},
	} {
		v, err := eval(c[0])
		if err != nil {
			t.Errorf("%s: %v", c[0], err)
			continue
		}
		text, err := v.MarshalJSON()
		if err != nil || string(text) != c[1] {
			t.Errorf("%s is %s, not %s", c[0], text, c[1])
		}
	}
}

// The language documents guid as a UUID of version 5 of the arguments, joined with hyphens, in a namespace of its own.
func TestGUID(t *testing.T) {
	t.Parallel()
	a, err := eval("guid('a', 'b')")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := eval("guid('a-b')")
	if a.Text() != b.Text() || len(a.Text()) != 36 || a.Text()[14] != '5' {
		t.Errorf("%s, %s", a.Text(), b.Text())
	}
}

func TestUnknownStaysUnknown(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"concat('a', later())", "later().x[1]", "if(later(), 1, 2)", "equals(later(), 1)", "string(createArray(later()))", "and(true(), later())", "toLower(open().b)", "coalesce(later(), 1)"} {
		if v, err := eval(s); err != nil || v.Kind != tree.Unknown {
			t.Errorf("%s: %v, %v", s, v, err)
		}
	}
	if v, err := eval("and(false(), later())"); err != nil || v.Kind != tree.Bool {
		t.Errorf("false decides: %v, %v", v, err)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{ // the expression, what the message has, what the hint has
		{"concat('a'", "a comma or ) is wanted here, not the end", "end them with )"},
		{"concat('a))", "a text begins here that does not end", ""},
		{"concat(\"a\")", "single quotes", ""},
		{"concat('a'))", `")" follows the end`, "was not opened"},
		{"abc", `"abc" is neither a text in quotes nor a call`, "variables('abc')"},
		{"true", "needs brackets", "true()"},
		{"", "ends where a value is wanted", ""},
		{"cocnat('a')", `no function "cocnat"`, "concat"},
		{"toLower('a', 'b')", "toLower takes 1 argument, not 2", ""},
		{"padLeft('a')", "padLeft takes 2 to 3 arguments, not 1", ""},
		{"toLower(1)", "a string is wanted here, not a whole number", ""},
		{"div(1, 0)", "div by 0", ""},
		{"add(9223372036854775807, 1)", "too large a number", ""},
		{"mul(4611686018427387904, 4)", "too large a number", ""},
		{"99999999999999999999", "no number", ""},
		{"createObject('a', 1).b", `has no "b"`, "a"},
		{"createObject('name', 1).nmae", `has no "nmae"`, "name"},
		{"createArray(1)[1]", "has 1 items, so there is no [1]", ""},
		{"'a'.b", "it is not an object", ""},
		{"substring('abc', 2, 5)", "has 1 letters from 2 on, not 5", "take"},
		{"int('x')", "cannot be read as a whole number", ""},
		{"bool('x')", "neither true nor false", ""},
		{"cidrSubnet('10.0.0.0/24', 25, 2)", "there is no part 2", ""}, {"cidrHost('10.0.0.0/30', 9)", "has no host 9", ""}, {"parseCidr('x')", "no range of addresses", "10.0.0.0/16"}, {"cidrSubnet('10.0.0.0/24', 99, 2)", "24 to 32 bits", ""},
		{"fail('no luck')", `the template says: "no luck"`, ""},
		{"json('{')", "not JSON", "cut off"},
		{"format('{1}', 'a')", "names none of the 1 values", "{0}"},
		{"range(0, 10001)", "0 to 10000", ""},
		{"padLeft('a', 2000000000)", "larger than 4 MiB", ""},
		{"dateTimeAdd('x', 'P1D')", "is no time", ""},
		{"map(createArray(1), 'x')", "a lambda", "lambda('x'"},
		{"filter(createArray(1), lambda('x', 'y'))", "neither true nor false", ""},
		{"base64ToString(secret())", "(secret) is no text in base64", ""},
		{"int(secret())", "(secret) cannot be read", ""},
		{"json(secret())", "the text is not JSON", ""},
		{strings.Repeat("concat(", 200) + "'a'" + strings.Repeat(")", 200), "nests deeper than 100", ""},
		{"'" + strings.Repeat("a", 25_000) + "'", "longer than 24576", ""},
	} {
		_, err := eval(c[0])
		e, ok := err.(*expr.Error)
		if !ok || !strings.Contains(e.Msg, c[1]) || !strings.Contains(hintOf(e), c[2]) {
			t.Errorf("%.60s: %v; hint %q", c[0], err, hintOf(e))
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the secret is told: %v", c[0], err)
		}
	}
}

func hintOf(e *expr.Error) string {
	if e == nil {
		return ""
	}
	return e.Hint + strings.Join(e.Known, ", ")
}

// Expressions that would grow without bound are stopped early.
func TestBombs(t *testing.T) {
	t.Parallel()
	twice := func(s, f string, n int) string {
		for range n {
			s = "reduce(range(0, 20), " + s + ", lambda('s', 'x', " + f + "(lambdaVariables('s'), lambdaVariables('s'))))"
		}
		return s
	}
	for _, s := range []string{
		twice("'aaaaaaaa'", "concat", 3), twice("createArray(1)", "createArray", 2), twice("createArray(1, 2, 3)", "concat", 3),
		twice("createObject('a', 1)", "createArray", 4),
		"map(range(0, 10000), lambda('a', map(range(0, 10000), lambda('b', map(range(0, 10000), lambda('c', 1))))))",
		"format('" + strings.Repeat("{0}", 7000) + "', padLeft('x', 1000000))",
		"replace(padLeft('x', 1000000, 'a'), 'a', padLeft('x', 1000000))",
		"split(padLeft('x', 4000000, 'a'), 'a')",
	} {
		if _, err := eval(s); err == nil || !strings.Contains(err.Error(), "larger") && !strings.Contains(err.Error(), "too") && !strings.Contains(err.Error(), "deeper") {
			t.Errorf("%.60s: %v", s, err)
		}
	}
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{"concat('a', 1)", "createObject('a', createArray(1)).a[0]", "format('{0:D3}', 3)", "map(range(0, 3), lambda('x', lambdaVariables('x')))",
		"dateTimeAdd('2020-04-07 14:53:14Z', '-P9D', 'd')", "json('{}').?a[?3]", "if(later(), secret(), open().b)", "substring('abc', 1, 1)", "union(createObject(), createObject('a', 1))"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := eval(s)
		if (v == nil) == (err == nil) {
			t.Fatalf("%v, %v", v, err)
		}
		if err == nil {
			if _, err := v.MarshalJSON(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
