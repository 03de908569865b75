//go:build receivers

package receivers_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// php is the PHP recipe, started with one more option.
func php(t *testing.T, options ...string) recipe {
	t.Helper()
	for _, r := range recipes() {
		if r.file == "receiver.php" {
			need(t, r.install, r.needs...)
			r.command = func(_ *testing.T, p place) *exec.Cmd {
				return exec.Command("php", append(options, "-S", "127.0.0.1:"+p.port, "receiver.php")...)
			}
			return r
		}
	}
	t.Fatal("there is no recipe in PHP")
	return recipe{}
}

// TestPHPMagic has a signature that PHP's == takes for the number zero, as it does "0" and
// many others.
func TestPHPMagic(t *testing.T) {
	const key, expire = "k", "4288734798"
	if s := sign(key, expire); !strings.HasPrefix(s, "0e") || strings.Trim(s[2:], "0123456789") != "" {
		t.Fatal("the signature is not such a one")
	}
	s := serve(t, php(t), []byte(`{"accept":["`+key+`"]}`))
	for other, want := range map[string]int{sign(key, expire): http.StatusOK, "0": http.StatusUnauthorized, "0e1": http.StatusUnauthorized,
		"0e462097431906509019562988736854": http.StatusUnauthorized} {
		if code, _ := s.post(t, fields{ExpireTime: expire, Sign: `"` + other + `"`}.signed(), false); code != want {
			t.Errorf("Sign %q is answered %d, where it must be %d", other, code, want)
		}
	}
}

// TestPHPFailure shows that a script which cannot run to its end, here for want of APCu, does
// not answer with PHP's default, 200.
func TestPHPFailure(t *testing.T) {
	s := serve(t, php(t, "-n", "-d", "display_errors=1"), keyring(t, previous, current, pending))
	for _, key := range []string{current, foreign} {
		s.refuses(t, key, http.StatusInternalServerError)
	}
}
