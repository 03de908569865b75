package secrets

import (
	"bytes"
	"strings"
	"testing"
)

func TestKeyEqual(t *testing.T) {
	t.Parallel()
	a, b := NewKey("1", "value"), NewKey("2", "value")
	for _, c := range []struct {
		x, y Key
		want bool
	}{{a, b, true}, {a, NewKey("1", "other"), false}, {a, Key{}, false}, {Key{}, a, false}, {Key{}, Key{}, true}, {NewKey("1", ""), Key{}, true}, {a, NewKey("", "value2"), false}} {
		if c.x.Equal(c.y) != c.want {
			t.Errorf("%v Equal %v is not %v", c.x, c.y, c.want)
		}
	}
}

// TestFingerprint: one value has one fingerprint, whatever its id, and it is that of FIPS 180-2's example.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if a, b := NewKey("1", "abc").Fingerprint(), NewKey("2", "abc").Fingerprint(); a != abc || b != abc || (Key{}).Fingerprint() != "" {
		t.Errorf("%s, %s", a, b)
	}
}

func TestGenerateKey(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 0, 31, 65, 1000} {
		if _, err := GenerateKey(nil, n); err == nil {
			t.Errorf("length %d is accepted", n)
		}
	}
	seen := map[string]bool{}
	for _, n := range []int{32, 33, 63, 64, 64, 64} {
		k, err := GenerateKey(nil, n)
		if err != nil || len(k.Reveal()) != n || len(k.ID()) != idLength || seen[k.Reveal()] || seen[k.ID()] {
			t.Fatalf("length %d: %v, %v", n, k, err)
		}
		if strings.Trim(k.Reveal(), base62) != "" {
			t.Errorf("it has characters outside base62")
		}
		if strings.Contains(k.Reveal(), k.ID()) {
			t.Error("the id is part of the value")
		}
		seen[k.Reveal()], seen[k.ID()] = true, true
	}
	if _, err := GenerateKey(strings.NewReader("short"), 32); err == nil {
		t.Error("too little randomness is accepted")
	}
}

// TestRejectionSampling feeds every byte value twice: 248 of them give each character four times,
// and the last eight, which would favour the first characters, none.
func TestRejectionSampling(t *testing.T) {
	t.Parallel()
	all := make([]byte, 0, 4*256)
	for range 4 {
		for b := 255; b >= 0; b-- {
			all = append(all, byte(b))
		}
	}
	got, err := randomString(bytes.NewReader(all), 496)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range base62 {
		if n := strings.Count(got, string(c)); n != 8 {
			t.Errorf("%c comes %d times", c, n)
		}
	}
}

// TestRejectedBytes has bytes that would favour a character come first.
func TestRejectedBytes(t *testing.T) {
	t.Parallel()
	random := append(bytes.Repeat([]byte{248, 255}, 40), make([]byte, 400)...)
	if got, err := randomString(bytes.NewReader(random), 8); err != nil || got != "00000000" {
		t.Errorf("%q, %v", got, err)
	}
}
