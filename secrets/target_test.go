package secrets

import "testing"

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"1400000001", "1/online-record", "-1", "9223372036854775808", " 7 ", "7/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			return
		}
		if again, err := ParseTarget(target.String()); err != nil || again != target {
			t.Fatalf("%q reads as %s, which reads as %s, %v", s, target, again, err)
		}
	})
}
