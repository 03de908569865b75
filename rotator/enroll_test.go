package rotator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"tiwkeyd/secrets"
)

func TestEnroll(t *testing.T) {
	t.Parallel()
	doubt := &APIError{Class: Doubtful, Code: "InternalError"}
	for _, r := range []struct {
		name    string
		spoil   func(*memory, secrets.Target)
		already bool
		want    error // nil: enrolled; else errors.Is, or a *RolledBackError
	}{
		{"a key in force", func(m *memory, target secrets.Target) { m.inForce[target] = secrets.NewKey("", "from before") }, false, nil},
		{"no key in force", func(*memory, secrets.Target) {}, false, nil},
		{"there already", func(m *memory, target secrets.Target) { m.adoptedKey(target, "value") }, true, nil},
		{"doubts", func(m *memory, _ secrets.Target) { m.lookErrs = []error{doubt, doubt} }, false, nil},
		{"doubts all the time", func(m *memory, _ secrets.Target) { m.lookErrs = []error{doubt, doubt, doubt} }, false, ErrUnsettled},
		{"refused", func(m *memory, _ secrets.Target) { m.lookErrs = refuse(1, Refused, "UnauthorizedOperation.SdkAppId") }, false, &RolledBackError{}},
		{"may not look", func(m *memory, _ secrets.Target) {
			m.lookErrs = []error{&APIError{Class: Refused, Code: "UnauthorizedOperation", Forbidden: true}}
		}, false, &RolledBackError{}},
		{"the store is away", func(m *memory, _ secrets.Target) { m.away = true }, false, ErrUnsettled},
		{"somebody else was faster", func(m *memory, target secrets.Target) {
			m.onLook = func() { m.change(func() { m.adoptedKey(target, "theirs") }) }
		}, false, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			r.spoil(m, target)
			e, _ := engineOn(t, m, "me", nil, nil)
			already, err := e.Enroll(t.Context(), target)
			var rolled *RolledBackError
			_, wantRolled := r.want.(*RolledBackError)
			if already != r.already || (err == nil) != (r.want == nil) || (r.want != nil && errors.As(err, &rolled) != wantRolled) || (r.want == ErrUnsettled && !errors.Is(err, ErrUnsettled)) {
				t.Errorf("%s: already %t, %v", r.name, already, err)
			}
			if k := m.keyring(target); (k != nil) != (r.want == nil) || m.setCalls(target) != 0 || (k != nil && k.Pending() != nil) {
				t.Errorf("%s: %s, %d set", r.name, describe(k), m.setCalls(target))
			}
			if k := m.keyring(target); k != nil && !k.CallbackKey().Equal(m.signing(target)) {
				t.Errorf("%s: %s is adopted", r.name, k.CallbackKey())
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.lookErrs = []error{doubt}
		e, _ := engineOn(t, m, "me", nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		m.onLook = cancel
		if _, err := e.Enroll(ctx, target); !errors.Is(err, ErrUnsettled) || !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
	})
}
