package webhook

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// often tells of refusals for one reason, and of some of them where they are many. The next line,
// or one that comes a little later, has the number of those that were left out.
type often struct {
	mu      sync.Mutex
	rate    *rate.Limiter
	leftOut int
	later   *time.Timer // nil: none was ever left out
}

func (o *often) tell(log *slog.Logger, reason Reason, about ...any) {
	o.mu.Lock()
	if !o.rate.Allow() {
		if o.leftOut++; o.leftOut == 1 {
			o.later = time.AfterFunc(10*time.Second, func() {
				if n := o.take(); n > 0 {
					log.Warn("callback not handed on", "reason", string(reason), "left_out", n)
				}
			})
		}
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	attrs := append([]any{"reason", string(reason)}, about...)
	if n := o.take(); n > 0 {
		attrs = append(attrs, "left_out", n)
	}
	log.Warn("callback not handed on", attrs...)
}

// take gives how many were left out and not told of yet.
func (o *often) take() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n, o.leftOut = o.leftOut, 0; n > 0 {
		o.later.Stop()
	}
	return n
}

// short cuts what comes from outside, and says how long it was.
func short(text string) string {
	const most = 256
	if len(text) <= most {
		return text
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s…(%d bytes)", text[:end], len(text))
}
