package rotator

import "tiwkeyd/secrets"

// Ask wants a new key for the targets, whatever the schedule says. A rotation already in
// hand serves, except that ByRevoke hastens it.
func (e *Engine) Ask(reason Reason, targets ...secrets.Target) {
	for _, t := range targets {
		tr := e.track(t)
		e.mu.Lock()
		if tr.ask == "" || ahead(reason).Before(ahead(tr.ask)) {
			tr.ask = reason
		}
		tr.asks++
		e.mu.Unlock()
	}
	e.rouse()
}

// hear takes account of what is asked for, and reports whether that is news.
func (e *Engine) hear(tr *track) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	news := tr.heard != tr.asks
	tr.heard = tr.asks
	return news
}

// take ends a request that is served, before anything is decided: a rotation in hand serves, except
// that ByRevoke hastens it, and BySignal means all that are not paused.
func (e *Engine) take(tr *track) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := tr.snap.Keyring
	inHand := k != nil && k.Pending() != nil && (tr.ask != ByRevoke || k.Rotation.Reason == ByRevoke)
	if inHand || (k.paused() && tr.ask == BySignal) {
		tr.ask = ""
	}
}

// unheard reports whether Ask came too late for the last visit, and what is asked for.
func (e *Engine) unheard(tr *track) (Reason, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return tr.ask, tr.heard != tr.asks
}

func (e *Engine) answerAsk(tr *track) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tr.ask = ""
}
