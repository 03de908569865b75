//go:build receivers

package receivers_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// files are the recipes, all of them.
var files = []string{"Receiver.java", "agent.hcl", "external-secret.yaml", "nginx.conf", "receiver.js",
	"receiver.mjs", "receiver.php", "receiver.py", "receiver.sh"}

// TestShort keeps the recipes short enough to be read before they are copied.
func TestShort(t *testing.T) {
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		if len(lines) > 40 {
			t.Errorf("%s has %d lines; 40 are the most", file, len(lines))
		}
		for i, line := range lines {
			if len([]rune(line)) > 140 {
				t.Errorf("%s:%d is %d characters long", file, i+1, len([]rune(line)))
			}
		}
		if !strings.ContainsAny(lines[0]+lines[1], "#/") {
			t.Errorf("%s does not begin by saying how to run it", file)
		}
	}
}

// TestListed shows that the page names every file, and that every file is known to the tests.
func TestListed(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range here {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() || strings.HasSuffix(name, "_test.go") || name == "README.md" {
			continue // folders have tests of their own
		}
		if !slices.Contains(files, name) {
			t.Errorf("%s is not tested", name)
		}
		if !strings.Contains(string(page), "("+name+")") {
			t.Errorf("README.md has no link to %s", name)
		}
	}
}
