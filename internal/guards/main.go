// Command guards takes each guard of the decision away, one at a time, and sees whether a test
// misses it. A guard is a condition in rotator/decide.go, facts.go, reads.go, pace.go, looks.go or company.go, each part of one, and each choice between two times or spans.
//
//	go run ./internal/guards [FUNCTION]
//
// It prints a line for each, with the first test that turned red, and ends with status 1 if one
// turned none. The working tree is left alone: go test gets the changed file as an overlay.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var all []guard
	for _, name := range []string{"decide.go", "facts.go", "reads.go", "pace.go", "looks.go", "company.go"} {
		path, err := filepath.Abs(filepath.Join("rotator", name))
		if err != nil {
			return err
		}
		found, err := guardsOf(path)
		if err != nil {
			return fmt.Errorf("%w (run it at the top of the repository)", err)
		}
		all = append(all, found...)
	}
	if len(os.Args) > 1 {
		var some []guard
		for _, g := range all {
			if g.function == os.Args[1] {
				some = append(some, g)
			}
		}
		all = some
	}
	dir, err := os.MkdirTemp("", "guards")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	verdicts := make([]verdict, len(all))
	work, done := make(chan int), make(chan int)
	var group sync.WaitGroup
	for range max(1, runtime.NumCPU()) {
		group.Go(func() {
			for i := range work {
				verdicts[i] = all[i].try(filepath.Join(dir, fmt.Sprint(i)))
				done <- i
			}
		})
	}
	go func() {
		for i := range all {
			work <- i
		}
		close(work)
		group.Wait()
		close(done)
	}()
	missed := 0
	for i := range done {
		v := verdicts[i]
		fmt.Printf("%s:%d\t%s\t%s\t%s\n", filepath.Base(all[i].path), all[i].line, all[i].function, all[i].what, v)
		if !v.caught {
			missed++
		}
	}
	fmt.Printf("%d guards, %d missed by no test\n", len(all), missed)
	if missed > 0 || len(all) == 0 {
		return fmt.Errorf("a guard of the decision that no test misses is either not needed or not tested")
	}
	return nil
}

// verdict is what came of the product without a guard.
type verdict struct {
	caught bool
	text   string
}

func (v verdict) String() string { return v.text }

// suites are tried in turn, the quick ones first.
var suites = [][]string{
	{"-run", "Decide|Situation|Property|Retire|Plausible|Times|Due|Fence|Transition", "./rotator"},
	{"-skip", "Exhaustive", "./rotator"},
	{"-run", "Exhaustive$", "./rotator"},
	{"-run", "Simulation", "./internal/sim"},
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// try runs the tests on the product without g.
func (g guard) try(dir string) verdict {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return verdict{text: err.Error()}
	}
	source, overlay := filepath.Join(dir, filepath.Base(g.path)), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {g.path: source}})
	if err == nil {
		err = os.WriteFile(source, g.without, 0o600)
	}
	if err == nil {
		err = os.WriteFile(overlay, text, 0o600)
	}
	if err != nil {
		return verdict{text: err.Error()}
	}
	for _, suite := range suites {
		out, err := exec.Command("go", append([]string{"test", "-vet=off", "-failfast", "-timeout", "5m", "-overlay", overlay}, suite...)...).CombinedOutput()
		if err == nil {
			continue
		}
		if red := failed.FindSubmatch(out); red != nil {
			return verdict{true, string(red[1])}
		}
		switch {
		case strings.Contains(string(out), "panic: test timed out"):
			return verdict{true, "a test that does not end"}
		case strings.Contains(string(out), "panic: "):
			return verdict{true, "a panic"}
		}
		return verdict{text: "no test ran: " + string(out)}
	}
	return verdict{text: "MISSED BY NO TEST"}
}
