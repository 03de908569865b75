package tiwtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// signedRequest is what TC3-HMAC-SHA256 signs (Tencent Cloud API 3.0, "Signature v3").
type signedRequest struct {
	method, path, query string
	headers             [][2]string // names in lower case, as signed and in that order
	payload             []byte
	timestamp           string // decimal seconds
	date, service       string // of the credential scope
}

// sign computes the signature in lower-case hex.
func (r signedRequest) sign(secretKey string) string {
	var headers strings.Builder
	var names []string
	for _, h := range r.headers {
		headers.WriteString(h[0] + ":" + strings.TrimSpace(h[1]) + "\n")
		names = append(names, h[0])
	}
	canonical := strings.Join([]string{r.method, r.path, r.query, headers.String(), strings.Join(names, ";"), hash(r.payload)}, "\n")
	scope := r.date + "/" + r.service + "/tc3_request"
	toSign := strings.Join([]string{"TC3-HMAC-SHA256", r.timestamp, scope, hash([]byte(canonical))}, "\n")
	key := mac([]byte("TC3"+secretKey), r.date)
	key = mac(mac(key, r.service), "tc3_request")
	return hex.EncodeToString(mac(key, toSign))
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text))
	return h.Sum(nil)
}

// authorization is the Authorization header's content.
type authorization struct {
	secretID, date, service, signature string
	signedHeaders                      []string
}

var errAuthorization = errors.New("the Authorization header is not of TC3-HMAC-SHA256")

func parseAuthorization(header string) (authorization, error) {
	var a authorization
	rest, ok := strings.CutPrefix(header, "TC3-HMAC-SHA256 ")
	if !ok {
		return a, errAuthorization
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 4 || scope[3] != "tc3_request" {
				return a, errAuthorization
			}
			a.secretID, a.date, a.service = scope[0], scope[1], scope[2]
		case "SignedHeaders":
			a.signedHeaders = strings.Split(value, ";")
		case "Signature":
			a.signature = value
		default:
			return a, errAuthorization
		}
	}
	if a.secretID == "" || a.signature == "" || !slices.Contains(a.signedHeaders, "host") || !slices.Contains(a.signedHeaders, "content-type") {
		return a, errAuthorization
	}
	return a, nil
}

// authenticate checks a request as Tencent does and gives an error code, "" if it is good.
func (s *Server) authenticate(r *http.Request, body []byte) (code, message string) {
	a, err := parseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		return "AuthFailure.InvalidAuthorization", err.Error()
	}
	stamp := r.Header.Get("X-TC-Timestamp")
	at, ok := parseSeconds(stamp)
	if !ok || at.UTC().Format(time.DateOnly) != a.date || a.service != "tiw" {
		return "AuthFailure.InvalidAuthorization", "the credential scope does not fit the request"
	}
	if age := s.now().Sub(at); age > s.signatureLife || age < -s.signatureLife {
		return "AuthFailure.SignatureExpire", "the signature has expired"
	}
	s.mu.Lock()
	secret, known := s.credentials[a.secretID]
	s.mu.Unlock()
	if !known {
		return "AuthFailure.SecretIdNotFound", "the SecretId is not found"
	}
	if secret.token != r.Header.Get("X-TC-Token") {
		return "AuthFailure.TokenFailure", "the token is wrong"
	}
	signed := signedRequest{method: r.Method, path: "/", query: r.URL.RawQuery, payload: body, timestamp: stamp, date: a.date, service: a.service}
	// The SDKs of Go and Python sign Host as it is sent, that of Node without the port.
	bare := (&url.URL{Host: r.Host}).Hostname()
	for _, host := range []string{r.Host, bare} {
		signed.headers = nil
		for _, name := range a.signedHeaders {
			value := r.Header.Get(name)
			if name == "host" {
				value = host
			}
			signed.headers = append(signed.headers, [2]string{name, value})
		}
		if hmac.Equal([]byte(signed.sign(secret.key)), []byte(a.signature)) {
			return "", ""
		}
	}
	return "AuthFailure.SignatureFailure", "the signature does not match"
}
