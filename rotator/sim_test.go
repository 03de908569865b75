package rotator

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestSimulation runs the real engine in simulated worlds. TIWKEYD_SIM_SEED replays one
// seed, TIWKEYD_SIM_SEEDS sets how many are run.
func TestSimulation(t *testing.T) {
	first, count := uint64(1), uint64(500)
	if s := os.Getenv("TIWKEYD_SIM_SEED"); s != "" {
		first, count = number(t, s), 1
	}
	if s := os.Getenv("TIWKEYD_SIM_SEEDS"); s != "" {
		count = number(t, s)
	}
	commits, rollbacks := 0, 0
	for seed := first; seed < first+count; seed++ {
		w := newWorld(seed, 1+int(seed%3))
		w.runFor(7 * 24 * time.Hour)
		err := w.settle()
		commits += w.commits
		rollbacks += w.rollbacks
		if err != nil || w.violation != "" {
			t.Fatalf("seed %d: %v %s\n%s", seed, err, w.violation, w.timeline())
		}
	}
	t.Logf("%d worlds, %d rotations, %d rolled back, no violation", count, commits, rollbacks)
	if commits < int(count) || rollbacks == 0 {
		t.Errorf("too little happened: %d rotations, %d rolled back", commits, rollbacks)
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSimulationReplays(t *testing.T) {
	run := func() string {
		w := newWorld(5, 3)
		w.runFor(24 * time.Hour)
		return w.timeline()
	}
	if a, b := run(), run(); a != b || a == "" {
		t.Errorf("the same seed gave two histories:\n%s\n\n%s", a, b)
	}
}
