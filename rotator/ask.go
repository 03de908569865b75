package rotator

// Ask wants a new key for the targets, whatever the schedule says. A rotation already in
// hand serves, except that ByRevoke hastens it.
func (e *Engine) Ask(reason Reason, targets ...Target) {
	for _, t := range targets {
		tr := e.track(t)
		e.mu.Lock()
		if tr.ask != ByRevoke {
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

func (e *Engine) asked(tr *track) Reason {
	e.mu.Lock()
	defer e.mu.Unlock()
	return tr.ask
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
