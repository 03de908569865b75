package doctor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"tiwkeyd/secrets"
)

// patience is after how many answers in a row that did not come the others are not waited for.
const patience = 3

// answer is what a look at one of many targets gave.
type answer struct {
	finding Finding
	away    bool // no answer came
}

// each looks at many targets, some at a time, and reports in their order. When nobody answers
// any more, the rest is told as skipped: each of thousands would wait for its own deadline.
func (e *examination) each(ctx context.Context, c Check, targets []secrets.Target, atOnce int, look func(context.Context, secrets.Target) answer) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer func() { cancel(); group.Wait() }()
	answers := make([]chan answer, len(targets))
	for i := range answers {
		answers[i] = make(chan answer, 1)
	}
	var next atomic.Int64
	for range min(atOnce, len(targets)) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(targets)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				answers[i] <- look(ctx, targets[i])
			}
		})
	}
	silent := 0
	for i := range targets {
		var a answer
		select {
		case a = <-answers[i]:
		case <-ctx.Done():
			return
		}
		e.report(a.finding)
		e.Progress(c, i+1, len(targets))
		if silent++; !a.away {
			silent = 0
		}
		if left := len(targets) - i - 1; silent == patience && left > 0 {
			e.report(Finding{Check: c, Status: Skip, What: fmt.Sprintf("%d more targets are not looked at: no answer came for %d in a row", left, patience)})
			return
		}
	}
}
