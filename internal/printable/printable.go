// Package printable has texts of others' making harmless for a terminal and a table.
package printable

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is s on one line, with all that a terminal would not show but obey, or show in another place, written out as
// \x1b, \u202e or the like, and without the password of a URL. What Tencent, Vault or a keyring says may come from anybody.
func Text(s string) string {
	s = WithoutPassword(s)
	if !strings.ContainsFunc(s, odd) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case odd(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case odd(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// A URL in quotes may be one that cannot be read, with anything in its password; else a name ends where the host does.
var (
	quoted = regexp.MustCompile(`("[A-Za-z][A-Za-z0-9+.-]*)://(?:\\"|[^"\n])*@`)
	bare   = regexp.MustCompile(`://[^/?#\s]*@`)
)

// WithoutPassword is s with what may be the user name and password of a URL taken out.
func WithoutPassword(s string) string {
	if !strings.Contains(s, "://") { // most have none
		return s
	}
	return bare.ReplaceAllString(quoted.ReplaceAllString(s, "$1://***@"), "://***@")
}

// odd tells control characters, line and paragraph separators, and marks that turn the direction of writing.
func odd(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}
