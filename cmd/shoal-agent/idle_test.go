package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What people are told comes after what the image says, once, however often it is told.
func TestNotice(t *testing.T) {
	dir := t.TempDir()
	day, kept := filepath.Join(dir, "motd"), filepath.Join(dir, "notice")
	put := func(text, want string) {
		t.Helper()
		if err := putNotice(day, kept, text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(day); err != nil || string(got) != want {
			t.Errorf("after %q it is %q, %v", text, got, err)
		}
	}
	put("sleeps in 5m", "sleeps in 5m\n")
	if err := os.WriteFile(day, []byte("Welcome.\n"), 0o600); err != nil { // by the pool's setup
		t.Fatal(err)
	}
	put("sleeps in 5m", "Welcome.\nsleeps in 5m\n")
	put("sleeps in 9m", "Welcome.\nsleeps in 9m\n")
	if err := os.Remove(kept); err != nil { // the machine was started anew
		t.Fatal(err)
	}
	put("sleeps in 9m", "Welcome.\nsleeps in 9m\n")
	put("", "Welcome.\n")
}
