package rotator

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// delay is the pause after the nth failure in a row: first, doubling up to most, and up to
// a quarter more so that replicas and targets do not come back all at once.
func (e *Engine) delay(n int, first, most time.Duration) time.Duration {
	b := backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: most}
	b.Reset()
	d := b.NextBackOff()
	for i := 1; i < n && d < most; i++ {
		d = b.NextBackOff()
	}
	var jitter [4]byte
	_, _ = io.ReadFull(e.random, jitter[:]) // without randomness there is no jitter
	return d + time.Duration(float64(d)/4*float64(binary.BigEndian.Uint32(jitter[:]))/(1<<32))
}
