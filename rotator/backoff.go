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
	return d + time.Duration(float64(d)*e.fraction()/4)
}

// fraction is a random number from 0 to 1; without randomness there is no jitter.
func (e *Engine) fraction() float64 {
	var b [4]byte
	if _, err := io.ReadFull(e.random, b[:]); err != nil {
		return 0
	}
	return float64(binary.BigEndian.Uint32(b[:])) / (1 << 32)
}
