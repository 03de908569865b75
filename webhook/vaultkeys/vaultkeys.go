// Package vaultkeys reads a receiver's keys from Vault. It is a package of its own so that who
// gets the keys from elsewhere need not have Vault's client.
package vaultkeys

import (
	"context"
	"fmt"

	"tiwkeyd/secrets/vault"
	"tiwkeyd/webhook"
)

// Reader is a webhook.Reader of the keyrings in Vault. The token needs the capability read on
// MOUNT/data/PREFIX/SDKAPPID/SERVICE, and nothing else.
type Reader struct{ store *vault.Store }

// New gives a Reader of a store, whose login it uses.
func New(store *vault.Store) Reader { return Reader{store} }

// ReadKeys reads the target's keyring.
func (r Reader) ReadKeys(ctx context.Context, t webhook.Target) (webhook.Keys, error) {
	v, err := r.store.Secret(ctx, t, 0)
	if err != nil {
		return webhook.Keys{}, err
	}
	if v.Content == nil {
		return webhook.Keys{}, fmt.Errorf("%s: %w", r.store, webhook.ErrNoKeyring)
	}
	keys, err := webhook.DecodeKeys(t, v.Content)
	keys.Version, keys.Written = v.Number, v.Written
	return keys, err
}

// String names the place in Vault.
func (r Reader) String() string { return r.store.String() }
