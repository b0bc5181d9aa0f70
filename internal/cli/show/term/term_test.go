package term

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestAgo(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		before time.Duration
		want   string
	}{
		{0, "now"}, {500 * time.Millisecond, "now"}, {42 * time.Second, "42s ago"}, {119 * time.Second, "119s ago"},
		{3*time.Minute + 20*time.Second, "3m ago"}, {80 * time.Minute, "1h20m ago"}, {26*time.Hour + 3*time.Minute, "1d2h ago"},
		{30 * 24 * time.Hour, "30d ago"}, {-5 * time.Minute, "in 5m"}, {time.Second - 2*time.Hour, "in 2h"},
	} {
		if got := Ago(now.Add(-tt.before), now); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.before, got, tt.want)
		}
	}
	if got := Ago(time.Time{}, now); got != "" {
		t.Errorf("the zero time is %q", got)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	err := Table(&b, []string{"NAME", "STATE", "REASON"}, [][]string{{"lab", "ready", ""}, {"größer", "", "waits\nlong \x1b[31mred"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "NAME    STATE  REASON\nlab     ready\ngrößer  -      waits long ?[31mred\n"
	if b.String() != want {
		t.Errorf("got\n%q, want\n%q", b.String(), want)
	}
}

func TestFields(t *testing.T) {
	var b bytes.Buffer
	if err := Fields(&b, []Field{{"Name", "lab"}, {"Reason", ""}, {"Events", "one\ntwo\n"}}); err != nil {
		t.Fatal(err)
	}
	if want := "Name:    lab\nEvents:  one\n         two\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, false)
	p.Show("never on a file")
	p.Note("one")
	p.Note("one")
	p.Note("two")
	p.Clear()
	if b.String() != "one\ntwo\n" {
		t.Errorf("got %q", b.String())
	}
	b.Reset()
	p = &Progress{w: &b, live: true, width: 20}
	p.Show("1 of 2")
	p.Show("1 of 2")
	p.Show("a line that is longer than the terminal")
	p.Note("done")
	lines := strings.Split(b.String(), "\r")
	if lines[0] != "1 of 2" || !strings.HasSuffix(b.String(), "done\n") {
		t.Errorf("got %q", b.String())
	}
	for _, l := range lines {
		if len([]rune(l)) > 20 {
			t.Errorf("%q is wider than the terminal", l)
		}
	}
	b.Reset()
	NewProgress(&b, true).Note("never")
	if b.Len() > 0 {
		t.Error("quiet writes")
	}
}
