package main

import (
	"fmt"
	"slices"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
)

// crowded warns if the settings in k mean that many keys are accepted at a time, and refuses them if no store
// could hold so many. Settings that were too much before, in the keyring was (nil: there was none), may stay.
func (ps *parts) crowded(was, k *rotator.Keyring) error {
	n, s := ps.schedule.Keys(&ps.policy, k), settingsOf(ps, k).Settings
	if n <= schedule.ManyKeys {
		return nil
	}
	kept := was != nil && slices.Equal(settingsOf(ps, was).Settings[:2], s[:2]) && ps.schedule.Keys(&ps.policy, was) > schedule.MaxKeys
	if n > schedule.MaxKeys && !kept {
		return fmt.Errorf("schedule %q (from %s) replaces more than %d keys within grace %s (from %s), and no store holds so many: rotate less often, or shorten the grace",
			s[0].Value, s[0].From, schedule.MaxKeys, s[1].Value, s[1].From)
	}
	ps.log.Warn(manyKeys, "target", k.Target.String(), "keys", n, "schedule", s[0].Value, "grace", s[1].Value)
	return nil
}

const manyKeys = "these settings have very many keys of a target accepted at a time; rotate less often, or shorten the grace"
