package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ts := []secrets.Target{{SdkAppID: 1400000001, Service: secrets.Transcode}, {SdkAppID: 5, Service: secrets.OnlineRecord}, {SdkAppID: 5, Service: secrets.WhiteboardPush}}
	for i, target := range ts {
		if _, err := s.Write(t.Context(), target, storetest.Keyring(target, i+1), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"readme.txt", "5/notes.json", "5/transcode.json.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, strange, err := s.Targets(t.Context(), nil)
	if err != nil || fmt.Sprint(all) != fmt.Sprint(ts) || strange != 2 {
		t.Errorf("%v, %d strange, %v", all, strange, err)
	}
	if _, _, err := At(filepath.Join(dir, "none")).Targets(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "list") {
		t.Errorf("of no directory: %v", err)
	}
}
