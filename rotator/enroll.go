package rotator

import (
	"context"
	"fmt"

	"tiwkeyd/secrets"
)

// Enroll adopts t if it has no keyring: the key in force at Tencent becomes its current one. It makes
// no key and sets none. already says that there was a keyring. Its errors are a *RolledBackError if
// Tencent refused, or wrap ErrUnsettled.
func (e *Engine) Enroll(ctx context.Context, t secrets.Target) (already bool, err error) {
	tr := e.track(t)
	tr.lastErr = nil
	if err := e.read(ctx, tr); err != nil {
		return false, fmt.Errorf("%s: %w: %w", t, ErrUnsettled, err)
	}
	already = tr.snap.Keyring != nil
	for tries := 1; tr.snap.Keyring == nil; {
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("%s: %w, and nothing was changed: %w", t, ErrUnsettled, err)
		}
		a, w := e.decide(tr)
		if a.Step == StepWait {
			sleepUntil(ctx, e.clock, a.Until, nil)
			continue
		}
		tr.lastErr = nil
		if err := e.carryOut(ctx, tr, a, w); err != nil {
			tr.lastErr = err
		}
		if tr.lastErr == nil {
			continue
		}
		if tries++; tries > earlyTries || refused(tr.lastErr) {
			return false, tr.notBegun()
		}
	}
	return already, nil
}
