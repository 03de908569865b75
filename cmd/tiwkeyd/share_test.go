package main

import "testing"

// TestShare: a daemon that sees another's rotation in the store takes turns with it at Tencent.
func TestShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	env := []string{"TIWKEYD_PROPAGATION=1h", "TIWKEYD_RATE=20", "TIWKEYD_HTTP_ADDR=127.0.0.1:0"}
	p, alone, two := r.pages(), "4.875", "9.75"
	allowed := func(d *process) string {
		return p.value(p.at(d), `tiwkeyd_tencent_rate_allowed{api="SetWhiteboardPushCallbackKey"}`)
	}
	one := r.daemon(env...)
	r.await("it begins a rotation", func() bool { k := r.keyring(); return k != nil && k.Rotation != nil })
	other := r.daemon(env...)
	r.await("the other sees it, and takes turns", func() bool { return allowed(other) == two })
	if got := allowed(one); got != alone {
		t.Errorf("the first, which has seen nobody, allows itself %s", got)
	}
}
