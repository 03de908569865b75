package webhook

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// naive is a second implementation, made another way on purpose: slow, with the standard
// library's tokens, plain comparisons and big numbers. What Verify accepts it must accept.
func naive(body []byte, app int64, keys map[string]string, now int64) (keyID string, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	v, ok := naiveValue(dec, 1)
	if !ok {
		return "", false
	}
	if len(bytes.Trim(body[dec.InputOffset():], " \t\r\n")) > 0 {
		return "", false
	}
	m, ok := v.(map[string]any)
	if !ok {
		return "", false
	}
	for name := range m {
		for _, known := range []string{"Timestamp", "SdkAppId", "ExpireTime", "Sign", "EventType", "EventData"} {
			if name != known && strings.EqualFold(name, known) || strings.Contains(name, "\x00") {
				return "", false
			}
		}
	}
	digits := regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
	for _, name := range []string{"Timestamp", "SdkAppId", "ExpireTime"} {
		n, ok := m[name].(json.Number)
		if !ok || !digits.MatchString(n.String()) {
			return "", false
		}
		if b, _ := new(big.Int).SetString(n.String(), 10); !b.IsInt64() {
			return "", false
		}
	}
	sign, isText := m["Sign"].(string)
	_, typeIsText := m["EventType"].(string)
	_, dataIsObject := m["EventData"].(map[string]any)
	if !isText || !typeIsText || !dataIsObject || m["SdkAppId"].(json.Number).String() != fmt.Sprint(app) {
		return "", false
	}
	expire := m["ExpireTime"].(json.Number)
	if n, err := expire.Int64(); err != nil || now > n {
		return "", false
	}
	for id, key := range keys {
		if fmt.Sprintf("%x", md5.Sum([]byte(key+expire.String()))) == sign {
			return id, true
		}
	}
	return "", false
}

func naiveValue(dec *json.Decoder, depth int) (any, bool) {
	tok, err := dec.Token()
	if err != nil {
		return nil, false
	}
	if tok != json.Delim('{') && tok != json.Delim('[') {
		_, isDelim := tok.(json.Delim)
		return tok, !isDelim
	}
	if depth > MaxDepth {
		return nil, false
	}
	object, list := map[string]any{}, []any{}
	for dec.More() {
		var name any
		if tok == json.Delim('{') {
			if name, err = dec.Token(); err != nil {
				return nil, false
			}
			if _, twice := object[name.(string)]; twice {
				return nil, false
			}
		}
		v, ok := naiveValue(dec, depth+1)
		if !ok {
			return nil, false
		}
		if name != nil {
			object[name.(string)] = v
		} else {
			list = append(list, v)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	if tok == json.Delim('{') {
		return object, true
	}
	return list, true
}
