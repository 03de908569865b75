package webhook

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: who receives callbacks does not link what only who rotates keys needs.
func TestImports(t *testing.T) {
	t.Parallel()
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil || !strings.Contains(string(deps), "tiwkeyd/webhook\n") {
		t.Fatalf("go list: %v, %s", err, deps)
	}
	text := strings.ReplaceAll(string(deps), "tiwkeyd/internal/private\n", "") // who may read a file of keys,
	text = strings.ReplaceAll(text, "tiwkeyd/internal/bounded\n", "")          // and how much of it is read
	for _, foreign := range []string{"robfig/cron", "hashicorp/vault", "tiwkeyd/rotator", "tiwkeyd/internal", "tiwkeyd/secrets/", "tiwkeyd/tencent"} {
		if strings.Contains(text, foreign) {
			t.Errorf("webhook imports %s", foreign)
		}
	}
}
