package tencent

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"tiwkeyd/internal/alive/alivetest"
	"tiwkeyd/secrets"
)

// TestDeadConnections: something between this and Tencent swallows what is sent on the connections that stand.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	for major := 1; major <= 2; major++ {
		synctest.Test(t, func(t *testing.T) {
			c, err := New(Options{Endpoint: "https://server.test", Credentials: Static(NewCredential("id", "key", ""))})
			if err != nil {
				t.Fatal(err)
			}
			alivetest.Recovers(t, c.transport.base, major, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"Response":{"CallbackKey":"a key of somebody","RequestId":"id"}}`)
			}, func() error {
				_, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush))
				return err
			})
		})
	}
}
