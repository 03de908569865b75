package doctor

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// TestFloodWarning: more targets than can be read on demand under a flood are warned of, unless
// each is read anyhow before its new key is in force.
func TestFloodWarning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		targets     int
		propagation time.Duration
		mend        string // "": no warning
	}{
		{1, 0, ""}, {400, 0, ""}, {401, 0, "20.05s"}, {1000, 50*time.Second - 1, "50s"}, {1000, 50 * time.Second, ""},
		{7200, 6 * time.Minute, ""}, {10_000, 6 * time.Minute, "8m20s"}, {10_000, 500 * time.Second, ""},
	} {
		var warned []Finding
		e := &examination{Subject: Subject{Config: &config.Config{Targets: make([]secrets.Target, c.targets), Policy: rotator.Policy{Propagation: c.propagation}}, Report: func(f Finding) {
			if strings.Contains(f.What, "forged callbacks") {
				warned = append(warned, f)
			}
		}}}
		e.receivers()
		switch {
		case c.mend == "" && len(warned) > 0:
			t.Errorf("%d targets, %s: %+v", c.targets, c.propagation, warned)
		case c.mend != "" && (len(warned) != 1 || warned[0].Status != Warn || !strings.Contains(warned[0].What, strconv.Itoa(c.targets)+" targets") || !strings.HasPrefix(warned[0].Mend, "set TIWKEYD_PROPAGATION to "+c.mend+" or more")):
			t.Errorf("%d targets, %s: %+v", c.targets, c.propagation, warned)
		}
	}
}
