package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/printable"
	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// targetStatus is what status tells of one target. Keys are ids.
type targetStatus struct {
	Target     string      `json:"target"`
	Phase      string      `json:"phase"`
	Keys       []keyStatus `json:"keys"`
	Reason     string      `json:"reason,omitempty"`
	Attempts   int         `json:"attempts,omitempty"`
	LateSince  *time.Time  `json:"late_since,omitempty"` // when the pending key was to be set, if it should be in force by now
	Paused     bool        `json:"paused,omitempty"`
	Overrides  []string    `json:"overrides,omitempty"` // NAME=VALUE, as tiwkeyd set takes them
	Waits      *setting    `json:"propagation,omitempty"`
	RotatedAt  *time.Time  `json:"rotated_at,omitempty"`
	Next       *time.Time  `json:"next_rotation,omitempty"`
	LastError  string      `json:"last_error,omitempty"`
	Edited     bool        `json:"edited,omitempty"`
	RequestID  string      `json:"request_id,omitempty"`
	StoreError string      `json:"store_error,omitempty"`
}

type keyStatus struct {
	ID          string     `json:"id"`
	State       string     `json:"state"`
	AgeSeconds  *int64     `json:"age_seconds,omitempty"` // nil: it is not written since when there is the key
	AcceptUntil *time.Time `json:"accept_until,omitempty"`
}

func (p *program) statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show every target: keys by id, ages, phase, next rotation, last error",
		Long:  "status reads the keyrings and shows them. It asks Tencent nothing and changes nothing.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withParts(cmd.Context(), func(ctx context.Context, parts *parts) error {
				return p.status(ctx, parts, asJSON)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) status(ctx context.Context, parts *parts, asJSON bool) error {
	targets, err := parts.targets(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	all := []targetStatus{}
	var failed []error
	for _, t := range targets {
		s, err := parts.store.Read(ctx, t)
		st := statusOf(t, s.Keyring, parts.schedule, now)
		if s.Keyring != nil {
			st.Waits = &settingsOf(parts, s.Keyring).Settings[2]
		}
		if err != nil {
			st.Phase, st.StoreError = "unknown", err.Error()
			failed = append(failed, fmt.Errorf("read the keyring of %s: %w", t, err))
		}
		all = append(all, st)
	}
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(all); err != nil {
			return err
		}
	} else if err := printStatus(p.stdout, all); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &exitError{code: exitUnsettled, err: errors.Join(failed...)}
	}
	return nil
}

func statusOf(t secrets.Target, k *rotator.Keyring, every *schedule.Schedule, now time.Time) targetStatus {
	st := targetStatus{Target: t.String(), Phase: phaseOf(k, now), Keys: []keyStatus{}}
	if k == nil {
		return st
	}
	st.Edited = k.Edited
	for _, e := range k.Keys {
		ks := keyStatus{ID: e.Key.ID(), State: string(e.State)}
		if !e.CreatedAt.IsZero() {
			ks.AgeSeconds = new(int64(now.Sub(e.CreatedAt).Seconds()))
		}
		if e.State == rotator.Previous {
			ks.AcceptUntil = optional(e.AcceptUntil)
		}
		st.Keys = append(st.Keys, ks)
	}
	if p := k.Pending(); p != nil && observe.Late(p.PushAfter, now) {
		st.LateSince = optional(p.PushAfter)
	}
	st.RotatedAt = optional(k.RotatedAt)
	next := dueOf(t, k, every)
	if o := k.Overrides; o != nil {
		st.Paused = o.Paused
		for i, value := range overridesText(o) {
			if value != "" {
				st.Overrides = append(st.Overrides, overrideNames[i]+"="+value)
			}
		}
	}
	if r := k.Rotation; r != nil {
		st.Reason, st.Attempts = string(r.Reason), r.Attempts
		if k.Pending() == nil {
			next = r.RetryAt
		}
		if f := r.LastError; f != nil {
			st.LastError, st.RequestID = strings.TrimSuffix(f.Code+": "+f.Message, ": "), f.RequestID
		}
	}
	if k.Pending() == nil {
		if next.Before(now) {
			next = now
		}
		if !st.Paused {
			st.Next = optional(next)
		}
	}
	return st
}

// dueOf is when the next key is due by schedule, the target's own if that can be used.
func dueOf(t secrets.Target, k *rotator.Keyring, every *schedule.Schedule) time.Time {
	return every.Of(k).Due(t, k.RotatedAt)
}

// phaseOf is where a target stands, in a word or two.
func phaseOf(k *rotator.Keyring, now time.Time) string {
	var ready time.Time
	if k != nil && k.Pending() != nil {
		ready = k.Pending().PushAfter
	}
	return map[rotator.Phase]string{
		rotator.Unadopted: "not adopted yet", rotator.Unsigned: "unsigned", rotator.Settled: "settled",
		rotator.Waiting: "waiting for receivers", rotator.Pushing: "setting the key", rotator.RolledBack: "rolled back",
	}[rotator.PhaseOf(k, ready, now)]
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Round(time.Second)
	return &t
}

func printStatus(out io.Writer, all []targetStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tPHASE\tCURRENT\tAGE\tALSO ACCEPTED\tPROPAGATION\tNEXT ROTATION\tLAST ERROR")
	for _, st := range all {
		current, age := "-", "-"
		var others []string
		for _, k := range st.Keys {
			switch k.State {
			case string(rotator.Current):
				if current = k.ID; k.AgeSeconds != nil {
					age = (time.Duration(*k.AgeSeconds) * time.Second).String()
				}
			case string(rotator.Pending):
				others = append(others, k.ID+" pending")
			default:
				other := k.ID
				if k.AcceptUntil != nil {
					other += " until " + k.AcceptUntil.Format(time.RFC3339)
				}
				others = append(others, other)
			}
		}
		phase, next, waits := st.Phase, "-", "-"
		if st.LateSince != nil {
			phase = "late: " + phase + ", since " + st.LateSince.Format(time.RFC3339)
		}
		if st.Waits != nil {
			waits = st.Waits.Value + " (" + st.Waits.From + ")"
		}
		if st.Paused {
			next = "paused"
		}
		if st.Next != nil {
			next = st.Next.Format(time.RFC3339)
		}
		lastError := st.LastError
		if st.RequestID != "" {
			lastError += " (RequestId " + st.RequestID + ")"
		}
		if st.Edited {
			lastError = "callback_key or accept was changed by hand: a daemon writes them anew"
		}
		if st.StoreError != "" {
			lastError = st.StoreError
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", st.Target, phase, printable.Text(current), age,
			dash(printable.Text(strings.Join(others, ", "))), waits, next, dash(printable.Text(lastError)))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
