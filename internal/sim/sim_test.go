package sim

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// options of the nth world.
func options(seed uint64) Options {
	without, err := ParsePowers(os.Getenv("TIWKEYD_SIM_WITHOUT"))
	if err != nil {
		panic(err)
	}
	return Options{Seed: seed, Replicas: 1 + int(seed%5), Without: without}
}

// TestSimulation has ten thousand rotations go on in worlds full of mishaps, a thousand in a short run.
// TIWKEYD_SIM_ROTATIONS sets how many, TIWKEYD_SIM_SEED shows one world.
func TestSimulation(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a world is small: half the time went into collecting it
	if s := os.Getenv("TIWKEYD_SIM_SEED"); s != "" {
		w := Play(options(uint64(number(t, s))))
		t.Logf("%+v\n%s", w.Result(), w.Timeline(1<<30))
		return
	}
	wanted := int64(10_000)
	if testing.Short() {
		wanted = 1000
	}
	if s := os.Getenv("TIWKEYD_SIM_ROTATIONS"); s != "" {
		wanted = number(t, s)
	}
	var seed, rotations, rolledBack, events, mishaps atomic.Int64
	var once sync.Once
	var group sync.WaitGroup
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for rotations.Load() < wanted && !t.Failed() {
				o := options(uint64(seed.Add(1)))
				play := Count
				if o.Seed%50 == 0 { // what is logged is read, too
					play = func(o Options) Result { return Play(o).Result() }
				}
				r := play(o)
				if r.Violation != "" {
					once.Do(func() { t.Errorf("%s", Shrink(o).Describe()) })
				}
				rotations.Add(int64(r.Rotations))
				rolledBack.Add(int64(r.RolledBack))
				events.Add(int64(r.Events))
				mishaps.Add(int64(r.Mishaps))
			}
		})
	}
	group.Wait()
	took := time.Since(began).Seconds()
	t.Logf("%d worlds, %d rotations, %d rolled back, %d mishaps, %d events: no violation; %.0f rotations and %.0f events a second",
		seed.Load(), rotations.Load(), rolledBack.Load(), mishaps.Load(), events.Load(), float64(rotations.Load())/took, float64(events.Load())/took)
	if rolledBack.Load() < rotations.Load()/20 || mishaps.Load() < rotations.Load() {
		t.Error("too little goes wrong")
	}
}

// slow marks a test that takes seconds, which a short run leaves out.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: runs with `make test`")
	}
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReplay: the same seed gives the same history, to the last line.
func TestReplay(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		a, b := Play(options(seed)), Play(options(seed))
		if a.Timeline(1<<30) != b.Timeline(1<<30) || a.Result().Events == 0 || a.read == 0 {
			t.Errorf("seed %d gave two histories, or nothing was logged", seed)
		}
		if a.Result().Violation != "" {
			t.Error(a.Describe())
		}
		if quiet := Count(options(seed)); quiet != a.Result() {
			t.Errorf("seed %d is another history without a timeline: %+v, %+v", seed, quiet, a.Result())
		}
	}
}

// TestMutants: each guard of the protocol that is taken away is missed, and soon. docs/proof.md
// has the figures. TIWKEYD_SIM_SHOW shows the shortest history found for each.
func TestMutants(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("../../docs/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Mutants() {
		t.Run(string(m), func(t *testing.T) {
			o, events, found := hunt(m)
			switch m { // whose harm shows in no single target's world
			case MemorySurvivesRevoke:
				events, found = huntReceiver(t, true)
			case UnpacedStaging:
				events, found = huntWave(t, true)
			}
			if !found {
				t.Fatal("the simulator does not find it")
			}
			figures := fmt.Sprintf("| %d | %s |", o.Seed, thousands(events))
			if row := regexp.MustCompile("(?m)^\\| `" + string(m) + "` .*$").Find(table); !strings.HasSuffix(string(row), figures) {
				t.Errorf("docs/proof.md has another seed or number: %s, and not %s", row, figures)
			}
			if os.Getenv("TIWKEYD_SIM_SHOW") != "" && m != MemorySurvivesRevoke && m != UnpacedStaging {
				t.Log(Shrink(o).Describe())
			}
		})
	}
}

// thousands writes a number as 1,234,567.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// hunt looks for the first world that a mutant does harm in, and counts the events until then.
func hunt(m Mutant) (o Options, events int, found bool) {
	if m == MemorySurvivesRevoke || m == UnpacedStaging {
		return options(1), 0, false
	}
	for seed := uint64(1); seed < 3000; seed++ {
		o = options(seed)
		o.Mutant = m
		r := Count(o)
		events += r.Events
		if r.Violation != "" {
			return o, events, true
		}
	}
	return o, events, false
}

// TestShrink: of what goes wrong in a world most has nothing to do with the violation.
func TestShrink(t *testing.T) {
	slow(t)
	t.Parallel()
	o, _, found := hunt(OneClock)
	if !found {
		t.Fatal("there is nothing to make small")
	}
	whole, small := Play(o), Shrink(o)
	if small.Result().Violation == "" || small.Result().Mishaps >= whole.Result().Mishaps/2 {
		t.Errorf("of %d mishaps %d are left", whole.Result().Mishaps, small.Result().Mishaps)
	}
	again := New(small.Options)
	again.play()
	if text := again.Describe(); text != small.Describe() || !strings.Contains(text, "VIOLATION") || !strings.Contains(text, "seed ") {
		t.Errorf("what was made small is another history the second time:\n%s", text)
	}
}
