package sim

import (
	"os"
	"strconv"
	"testing"
)

func TestOne(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("ONE"), 10, 64)
	if err != nil {
		t.Skip()
	}
	o := options(n)
	o.Mutant = Mutant(os.Getenv("MUTANT"))
	w := Play(o)
	if os.Getenv("SHRINK") != "" {
		w = Shrink(o)
	}
	lines, _ := strconv.Atoi(os.Getenv("LINES_"))
	t.Logf("%s\n%s\n%s", w.log[0], w.Result().Violation, w.Timeline(lines))
}
