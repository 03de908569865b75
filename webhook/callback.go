package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deeply a callback's JSON may be nested. Tencent's have two levels or three.
const MaxDepth = 32

// Callback is an event notification as Tencent sends it. Only ExpireTime is covered by Sign:
// who has seen one callback can send another with the same Sign and ExpireTime and whatever
// else, until then.
type Callback struct {
	Timestamp  int64 // when it was sent, in seconds since 1970
	SdkAppID   int64
	ExpireTime int64           // after it the callback is void, in seconds since 1970; 0 if it has none, which only an unsigned one may
	Sign       string          // lower-case hex of MD5(key + decimal ExpireTime); "" if Signed is false
	Signed     bool            // whether there was a Sign that was not empty
	EventType  string          // such as "WhiteboardPushStarted"
	EventData  json.RawMessage // a JSON object
}

// Parse reads the body of a callback, of which the Callback keeps a part: do not change it
// afterwards. It is strict, because whoever reads the body next may read it otherwise: a
// member of another type than the documented one, a name that is there twice (at any level),
// text behind the end and deep nesting are Malformed, and so is a name that differs from a
// documented one in case only. Members that are not documented are
// passed over, and invalid UTF-8 inside a string is let pass, as encoding/json does.
func Parse(body []byte) (Callback, error) {
	if tooDeep(body) {
		return Callback{}, refuse(Malformed, "the JSON is nested more than %d levels deep", MaxDepth)
	}
	p := parsers.Get().(*parser)
	defer p.release()
	c, err := p.parse(body)
	if err != nil {
		return Callback{}, refuse(Malformed, "%s", err)
	}
	return c, nil
}

// parser is a decoder that is used again and again.
type parser struct {
	decoder *jsontext.Decoder
	source  bytes.Buffer
}

var parsers = sync.Pool{New: func() any {
	return &parser{decoder: jsontext.NewDecoder(bytes.NewReader(nil), jsontext.AllowInvalidUTF8(true))}
}}

func (p *parser) release() {
	p.source = bytes.Buffer{}
	p.decoder.Reset(&p.source, jsontext.AllowInvalidUTF8(true))
	parsers.Put(p)
}

var (
	errNotJSON   = errors.New("it is not JSON")
	errRepeated  = errors.New("a name in the JSON is repeated")
	errNotObject = errors.New("it is not a JSON object")
	errLookalike = errors.New("a name in the JSON looks like a documented one, and is not")
	errTrailing  = errors.New("there is text behind the JSON object")
)

func (p *parser) parse(body []byte) (c Callback, err error) {
	p.source = *bytes.NewBuffer(body)
	d := p.decoder
	d.Reset(&p.source, jsontext.AllowInvalidUTF8(true))
	if open, err := d.ReadToken(); err != nil {
		return c, errNotJSON
	} else if open.Kind() != '{' {
		return c, errNotObject
	}
	has := 0
	for d.PeekKind() == '"' {
		name, err := d.ReadValue()
		if err != nil {
			return c, syntax(err)
		}
		m, err := memberOf(name) // before the next read, after which name holds no more
		if err != nil {
			return c, err
		}
		value, err := d.ReadValue()
		if err != nil {
			return c, syntax(err)
		}
		end := int(d.InputOffset())
		if err := c.take(m, body[end-len(value):end]); err != nil {
			return c, fmt.Errorf("%s is not %w", memberNames[m], err)
		}
		has |= 1 << m
	}
	if _, err := d.ReadToken(); err != nil {
		return c, syntax(err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return c, errTrailing
	}
	for m := timestamp; m < undocumented; m++ {
		// A callback that is not signed may have no ExpireTime either.
		if has&(1<<m) == 0 && m != sign && (m != expireTime || c.Signed) {
			return c, fmt.Errorf("%s is missing", memberNames[m])
		}
	}
	return c, nil
}

// syntax does not quote the library's error, which may quote the body.
func syntax(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errRepeated
	}
	return errNotJSON
}

// member is one of a callback's documented members.
type member int

const (
	timestamp member = iota
	sdkAppID
	expireTime
	sign
	eventType
	eventData
	undocumented
)

var memberNames = [...]string{"Timestamp", "SdkAppId", "ExpireTime", "Sign", "EventType", "EventData"}

// memberOf knows a member by its name as it stands in the JSON, with quotes and escapes. Names
// that a careless parser takes for a documented one are refused: encoding/json does not
// distinguish case, and in C a string ends with NUL.
func memberOf(quoted []byte) (member, error) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	for m, known := range memberNames {
		if string(name) == known {
			return member(m), nil
		}
	}
	if bytes.IndexByte(name, 0) >= 0 {
		return undocumented, errLookalike
	}
	for _, known := range memberNames {
		if bytes.EqualFold(name, []byte(known)) {
			return undocumented, errLookalike
		}
	}
	return undocumented, nil
}

// take keeps a value; its error says what the value should be.
func (c *Callback) take(m member, v []byte) error {
	switch m {
	case timestamp:
		return wholeNumber(v, &c.Timestamp)
	case sdkAppID:
		return wholeNumber(v, &c.SdkAppID)
	case expireTime:
		return wholeNumber(v, &c.ExpireTime)
	case sign:
		err := text(v, &c.Sign)
		c.Signed = c.Sign != ""
		return err
	case eventType:
		return text(v, &c.EventType)
	case eventData:
		if v[0] != '{' {
			return errors.New("an object")
		}
		c.EventData = v
	}
	return nil
}

// wholeNumber reads a JSON number that is written as a whole number and not negative: no
// fraction, no exponent.
func wholeNumber(v []byte, into *int64) error {
	n, err := strconv.ParseUint(string(v), 10, 63)
	if err != nil {
		return errors.New("a whole number in range")
	}
	*into = int64(n)
	return nil
}

func text(v []byte, into *string) error {
	if v[0] != '"' {
		return errors.New("a string")
	}
	if bytes.IndexByte(v, '\\') < 0 {
		*into = string(v[1 : len(v)-1])
		return nil
	}
	// Invalid UTF-8 has been let pass: what comes of it is no error here either.
	unquoted, _ := jsontext.AppendUnquote(nil, v)
	*into = string(unquoted)
	return nil
}

// Format prints what the callback is about, whichever verb is asked for: with its Sign, which
// a log would show, others could be sent until it expires.
func (c Callback) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "%q of SdkAppId %d, expires at %d", c.EventType, c.SdkAppID, c.ExpireTime)
}

// LogValue is what Format prints.
func (c Callback) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// tooDeep counts brackets outside of strings. What it says of text that is not JSON does not
// matter: that is refused anyhow.
func tooDeep(body []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case b == '"':
			inString = !inString
		case inString:
			if b == '\\' {
				i++
			}
		case b == '{' || b == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return false
}
