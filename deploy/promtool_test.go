//go:build deploy

package deploy_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestRules has promtool check the rules and try every case of their tests.
func TestRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		c := exec.Command("promtool", args...)
		c.Dir = "prometheus"
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("promtool %s: %v (where there is none: apt-get install prometheus)\n%s", strings.Join(args, " "), err, out)
		}
	}
}
