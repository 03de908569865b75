package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// lister is a store that can tell which targets it has keyrings of.
type lister interface {
	Targets(ctx context.Context, known []secrets.Target) (all []secrets.Target, strange int, err error)
}

const (
	// listEvery is how often the store is listed, listWhole of these times with every folder.
	listEvery = 5 * time.Minute
	listWhole = 12
	listLimit = 2 * time.Minute
)

// discovery finds the targets that have keyrings in the store.
type discovery struct {
	lister lister
	store  rotator.Store
	log    *slog.Logger
	found  chan []secrets.Target // the whole list, each time that it was read
	failed func(error)           // hears of each list that could not be read
}

// run lists the store until ctx ends: at once, and again and again.
func (d *discovery) run(ctx context.Context) {
	pause := backoff.ExponentialBackOff{InitialInterval: time.Second, Multiplier: 2, MaxInterval: time.Minute, RandomizationFactor: 0.3}
	pause.Reset()
	var known []secrets.Target
	for round := 0; ; {
		if round%listWhole == 0 {
			known = nil
		}
		all, err := d.list(ctx, known)
		if ctx.Err() != nil {
			return
		}
		wait := listEvery + time.Duration(rand.Int64N(int64(listEvery/5))) // so that replicas do not list in step
		if err != nil {
			d.failed(err)
			wait = pause.NextBackOff()
			d.log.Error("the keyrings could not be listed; those known are served on", "store", d.store.String(), "error", err.Error(), "again_in", wait.Round(time.Millisecond).String())
		} else {
			pause.Reset()
			round++
			known = all
			select {
			case d.found <- all:
			case <-ctx.Done():
				return
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (d *discovery) list(ctx context.Context, known []secrets.Target) ([]secrets.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	all, strange, err := d.lister.Targets(ctx, known)
	if strange > 0 {
		d.log.Debug("there are names in the store that are no target's", "count", strange)
	}
	slices.SortFunc(all, secrets.Target.Compare)
	return slices.Compact(all), err
}

// targets gives those of the configuration and, with TIWKEYD_DISCOVER, what the store has keyrings
// of, in order.
func (ps *parts) targets(ctx context.Context) ([]secrets.Target, error) {
	all := slices.Clone(ps.config.Targets)
	if !ps.config.Discover {
		return all, nil
	}
	found, _, err := ps.lister.Targets(ctx, nil)
	if err != nil {
		return nil, &exitError{code: exitUnsettled, err: fmt.Errorf("list the keyrings: %w", err)}
	}
	all = append(all, found...)
	slices.SortFunc(all, secrets.Target.Compare)
	return slices.Compact(all), nil
}

// serving is which targets the daemon looks after: those of the configuration, and those found.
type serving struct {
	ps     *parts
	engine *rotator.Engine
	w      *watch
	found  []secrets.Target // as last listed
}

// update takes account of another list of what the store has.
func (s *serving) update(found []secrets.Target) {
	s.w.found = found
	gone := leaving(s.found, found, s.ps.config.Targets)
	came := leaving(found, s.found, s.ps.config.Targets)
	// A name that stays after its secret was deleted is given each time: the engine drops it again.
	s.engine.ServeFound(found...)
	s.engine.Drop(gone...)
	s.found = found
	if len(came)+len(gone) > 0 {
		s.ps.log.Info("the store was listed", "targets", len(found), "came", len(came), "first_come", brief(came), "went", len(gone), "first_gone", brief(gone))
	}
	s.refresh()
}

// refresh tells those who look on what is served now.
func (s *serving) refresh() { s.w.serves(s.ps, s.engine, s.engine.Served()) }

// leaving gives what is in all and in none of the others; all is in order.
func leaving(all []secrets.Target, others ...[]secrets.Target) []secrets.Target {
	in := map[secrets.Target]bool{}
	for _, o := range others {
		for _, t := range o {
			in[t] = true
		}
	}
	var left []secrets.Target
	for _, t := range all {
		if !in[t] {
			left = append(left, t)
		}
	}
	return left
}

// brief names a few targets.
func brief(ts []secrets.Target) string {
	const shown = 5
	var names []string
	for _, t := range ts[:min(shown, len(ts))] {
		names = append(names, t.String())
	}
	if len(ts) > shown {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
