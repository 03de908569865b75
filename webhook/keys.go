package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tiwkeyd/secrets"
)

// DecodeKeys reads from a keyring's JSON what a receiver has to know, and no more: a keyring
// that a later version of tiwkeyd wrote will do, as long as it has the accepted keys in
// "accept". The application and the service must be the target's, where the JSON names them; a
// target without a service stands for any. What cannot be understood in "revoked" is passed over: it
// must not cost a receiver its keys.
// The error never quotes the JSON.
func DecodeKeys(t Target, keyring []byte) (Keys, error) {
	var stored struct {
		SdkAppID       *int64  `json:"sdk_app_id"`
		Service        *string `json:"service"`
		Accept         []string
		AcceptUnsigned bool `json:"accept_unsigned"`
		Keys           []struct{ ID, Value string }
		Revoked        json.RawMessage
	}
	if json.Unmarshal(keyring, &stored) != nil {
		return Keys{}, fmt.Errorf("keyring of %s: it is not the JSON of a keyring", t)
	}
	if stored.SdkAppID != nil && *stored.SdkAppID != t.SdkAppID {
		return Keys{}, fmt.Errorf("keyring of %s: it belongs to SdkAppId %d", t, *stored.SdkAppID)
	}
	if stored.Service != nil && t.Service != "" && *stored.Service != string(t.Service) {
		return Keys{}, fmt.Errorf("keyring of %s: it belongs to another service", t)
	}
	if len(stored.Accept) == 0 && !stored.AcceptUnsigned {
		return Keys{}, fmt.Errorf("keyring of %s: it has no key in \"accept\"", t)
	}
	ids := map[string]string{}
	for _, k := range stored.Keys {
		ids[k.Value] = k.ID
	}
	keys := Keys{SdkAppID: t.SdkAppID, AcceptUnsigned: stored.AcceptUnsigned, Revoked: decodeRevoked(stored.Revoked)}
	for i, value := range stored.Accept {
		if value == "" {
			return Keys{}, fmt.Errorf("keyring of %s: there is an empty key in \"accept\"", t)
		}
		id := ids[value]
		if id == "" {
			id = fmt.Sprintf("accept[%d]", i)
		}
		keys.Accept = append(keys.Accept, secrets.NewKey(id, value))
	}
	return keys, nil
}

// decodeRevoked gives what can be understood of a list of revoked keys.
func decodeRevoked(list json.RawMessage) []Revoked {
	var stored []struct{ ID, SHA256 string }
	_ = json.Unmarshal(list, &stored) // it leaves empty what is of another type, and goes on
	var all []Revoked
	for _, s := range stored {
		if strings.HasPrefix(s.ID, "accept[") || strings.HasPrefix(s.ID, "line-") {
			s.ID = "" // we name places so, where any key may come to stand
		}
		if s.ID != "" || s.SHA256 != "" {
			all = append(all, Revoked{s.ID, s.SHA256})
		}
	}
	return all
}

// join has the keys of several services of one application accepted alike: a callback does
// not tell which service sent it.
func join(all []Keys) Keys {
	joined := all[0]
	for _, k := range all[1:] {
		joined.Accept = append(joined.Accept[:len(joined.Accept):len(joined.Accept)], k.Accept...)
		joined.AcceptUnsigned = joined.AcceptUnsigned || k.AcceptUnsigned
	}
	return joined
}

// ErrNoKeyring says that a target has no keyring yet where a Reader looked.
var ErrNoKeyring = errors.New("there is no keyring yet: run `tiwkeyd rotate`, or wait for the daemon's first run")
