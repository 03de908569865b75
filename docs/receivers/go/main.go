// A receiver in Go: SDK_APP_ID=1400000001 VAULT_ADDR=… VAULT_TOKEN=… PORT=8080 go run . (KEYRING=FILE: what Vault Agent renders)
package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/webhook"
	"tiwkeyd/webhook/vaultkeys"
)

func main() {
	target, err := secrets.ParseTarget(os.Getenv("SDK_APP_ID"))
	must(err)
	var keys webhook.Reader = webhook.File(os.Getenv("KEYRING"))
	if keys == webhook.File("") {
		login, err := vault.LoginFromEnv(os.Getenv) // VAULT_TOKEN, AppRole, Kubernetes …
		must(err)
		store, err := vault.New(vault.Options{Mount: "secret", Prefix: "tiw", Login: login})
		must(err)
		keys = vaultkeys.New(store)
	}
	cache := webhook.NewCache(context.Background(), keys, webhook.CacheOptions{}, target)
	verified := webhook.Middleware(webhook.Options{Keys: cache, Log: slog.Default()})
	http.Handle("/", verified(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		event, _ := webhook.FromContext(r.Context())
		slog.Info("callback", "event", event.EventType) // your work here
	}))) // writes nothing: the answer is 200 {"error_code":0}
	must(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

func must(err error) { // a mistake in the settings
	if err != nil {
		panic(err)
	}
}
