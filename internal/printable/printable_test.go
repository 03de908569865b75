package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"": "", "as it is, größer 白板 🙂 �": "as it is, größer 白板 🙂 �", `a\b`: `a\b`,
		"\x1b]0;title\x07": `\x1b]0;title\x07`, "one\r\ntwo\tthree": `one\x0d\x0atwo\x09three`, "\u009b31m\x7f": `\x9b31m\x7f`,
		"https://host: a mail to a.b@c": "https://host: a mail to a.b@c", `lacks "x" at https://host:1: status 403 for a@b`: `lacks "x" at https://host:1: status 403 for a@b`, `at http://u:p"w@h/, a@b`: `at http://***@h/, a@b`, `parse "http://user:p%zz/ \" w@host:1": invalid; see a@b`: `parse "http://***@host:1": invalid; see a@b`,
		"https://host/ and a@b\nhttp://u:p@h": `https://host/ and a@b\x0ahttp://***@h`, "https://host/path": "https://host/path", "a@b": "a@b",
		"a\u202eb\u2066c\u2028d": `a\u202eb\u2066c\u2028d`, "\xff\xfea": `\xff\xfea`,
	} {
		if got := Text(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("\x1b[2J\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || Text(got) != got {
			t.Errorf("%q: %q", s, got)
		}
	})
}
