package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestManual has a page for every command that --help lists, and the same pages from the same source.
func TestManual(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if out, code := r.run([]string{"manual", dir}, "SOURCE_DATE_EPOCH=1700000000"); code != 0 {
			t.Fatalf("%d, %s", code, out)
		}
	}
	names := []string{"tiwkeyd"}
	for _, c := range (&program{}).rootCommand().Commands() {
		if !c.Hidden {
			names = append(names, "tiwkeyd-"+c.Name())
		}
	}
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(first, name+".1"))
		b, err2 := os.ReadFile(filepath.Join(second, name+".1"))
		if err != nil || err2 != nil || len(a) == 0 || string(a) != string(b) {
			t.Errorf("%s: %v, %v, %d and %d bytes", name, err, err2, len(a), len(b))
		}
	}
	if out, code := r.run([]string{"manual", first}, "SOURCE_DATE_EPOCH="); code != exitUsage {
		t.Errorf("without a date: %d, %s", code, out)
	}
}
