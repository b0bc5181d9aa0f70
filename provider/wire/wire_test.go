package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

// What is written down is read again as it was; only secrets' names stay behind.
func TestMachines(t *testing.T) {
	s := provider.MachineSpec{ID: "m-1", Pool: "lab", Token: "t", Image: "debian", OS: "windows",
		Resources: shoal.Resources{CPUs: 1501, Memory: 3 << 30, GPUs: 2}, Config: map[string]any{"sku": "a"}, Setuid: true, Private: true, Grace: 90 * time.Second,
		Mounts: []provider.Mount{{Share: shoal.Share{Name: "team", Source: "nfs://files/team", Options: map[string]string{"vers": "4"}}, Path: "/shared", ReadOnly: true}},
		Join:   provider.Join{Machine: "m-1", Pool: "lab", Token: "secret", Control: "https://x", CA: "PEM", Epoch: 3}}
	said := s
	said.Mounts = []provider.Mount{s.Mounts[0]}
	said.Mounts[0].Share.Credentials = &shoal.SecretRef{Secret: "key"}
	text, err := json.Marshal(wire.MachineOf(said))
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Machine
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if got := m.Spec(); !reflect.DeepEqual(got, s) {
		t.Errorf("it became %+v\nand was    %+v", got, s)
	}
}

func TestExitStatus(t *testing.T) {
	for i, c := range []provider.Code{provider.NotFound, provider.NoCapacity, provider.Quota, provider.Denied, provider.Transient, provider.Invalid} {
		if got := wire.Exit(c); got != 10+i || wire.CodeOf(got) != c {
			t.Errorf("%s is %d, which is %s", c, got, wire.CodeOf(got))
		}
	}
	if wire.Exit("strange") != 1 || wire.CodeOf(1) != provider.Transient || wire.CodeOf(-1) != provider.Transient {
		t.Error("what is no code can be tried again")
	}
}

// A session ends with its input, and answers all that it was asked before.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fake.New(fake.Config{})
		defer p.Close()
		in := `{"protocol":1,"id":1,"op":"create","machine":{"id":"m-1","pool":"lab","token":"t"}}
{"protocol":1,"id":2,"op":"dance"}
{"protocol":1,"id":3,"op":"describe"}`
		var out bytes.Buffer
		if err := (wire.Program{Provider: p, Mode: wire.Session}).Serve(t.Context(), strings.NewReader(in), &out); err != nil {
			t.Error(err)
		}
		answers := map[int64]wire.Answer{}
		for dec := json.NewDecoder(&out); dec.More(); {
			var a wire.Answer
			if err := dec.Decode(&a); err != nil {
				t.Fatal(err)
			}
			answers[a.ID] = a
		}
		if len(answers) != 3 || answers[1].Error != nil || answers[2].Error == nil || answers[2].Error.Code != provider.Invalid ||
			answers[3].Description == nil || answers[3].Description.Mode != wire.Session {
			t.Errorf("it answers %+v", answers)
		}
		if err := (wire.Program{Provider: p}).Serve(t.Context(), strings.NewReader("hello"), &out); err == nil {
			t.Error("what is no request was taken for one")
		}
	})
}
