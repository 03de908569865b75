package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.."

// TestMakefile: what the documents tell to make can be made, every target says what it is
// for, and every test that a tier names is there, or it would be left out in silence.
func TestMakefile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):(.*)$`).FindAllStringSubmatch(string(text), -1) {
		targets = append(targets, m[1])
		if !strings.Contains(m[2], "## ") {
			t.Errorf("make %s has no ## comment for `make help`", m[1])
		}
	}
	asked, tests := regexp.MustCompile("(?:`|^)make ([a-z][a-z0-9-]*)"), map[string]bool{}
	define := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		document, test := filepath.Ext(path) == ".md", strings.HasSuffix(path, "_test.go")
		if !document && !test {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if test {
			for _, m := range define.FindAllSubmatch(content, -1) {
				tests[string(m[1])] = true
			}
			return nil
		}
		for line := range strings.Lines(string(content)) {
			for _, m := range asked.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(targets, m[1]) {
					t.Errorf("%s tells to run `make %s`, which is no target", path, m[1])
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:SEARCHES|E2E) +=.*\((.*)\)`).FindAllStringSubmatch(string(text), -1) {
		for name := range strings.SplitSeq(m[1], "|") {
			if name = "Test" + strings.TrimSuffix(name, ".*"); !tests[name] {
				t.Errorf("the Makefile names %s, which is no test", name)
			}
		}
	}
	if len(targets) < 20 || len(tests) < 400 {
		t.Errorf("%d targets and %d tests: this test reads the wrong files", len(targets), len(tests))
	}
}
