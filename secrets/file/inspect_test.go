package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInspect looks at directories of every kind, and leaves them as they are.
func TestInspect(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(base, name) }
	must(os.Mkdir(in("private"), 0o700))
	must(os.Mkdir(in("open"), 0o700))
	must(os.Chmod(in("open"), 0o750))
	must(os.WriteFile(in("file"), nil, 0o600))
	must(os.Symlink(in("private"), in("link")))
	must(os.Symlink("open", in("ajar")))
	for dir, want := range map[string]struct {
		exists bool
		inside string
		err    string
	}{
		"private":   {true, "private", ""},
		"not/there": {false, "", ""},
		"open":      {true, "open", "can be read by others (mode 0750)"},
		"file":      {false, "file", "is not a directory"},
		"file/x":    {false, "file", "is not a directory"},
		"link":      {true, "link", ""},
		"ajar":      {true, "ajar", "can be read by others (mode 0750)"},
	} {
		p, err := At(in(dir)).Inspect()
		if p.Exists != want.exists || p.Inside != filepath.Join(base, want.inside) {
			t.Errorf("%s: %+v", dir, p)
		}
		if (err == nil) != (want.err == "") || (err != nil && !strings.Contains(err.Error(), want.err)) {
			t.Errorf("%s: %v", dir, err)
		}
		if err == nil && p.Free == 0 {
			t.Errorf("%s: no free space", dir)
		}
	}
	if left, err := os.ReadDir(base); err != nil || len(left) != 5 {
		t.Errorf("%v, %v", left, err)
	}
}
