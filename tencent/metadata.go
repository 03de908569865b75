package tencent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// metadata is where a machine of Tencent's asks for the credential of its role (CVM documentation, "Instance metadata").
type metadata struct {
	url    string
	client *http.Client
}

// metadataTimeout bounds each of two requests; on a machine that is not Tencent's nobody answers.
const metadataTimeout = 5 * time.Second

// newMetadata gives a client of its own: what it is given goes through no proxy, and only to an address that never
// leaves the machine's own link.
func newMetadata() *metadata {
	dialer := &net.Dialer{Timeout: metadataTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().IsLinkLocalUnicast() {
			return fmt.Errorf("the metadata service is at %s, which is no link-local address: this is no machine of Tencent's, or its DNS leads elsewhere", address)
		}
		return nil
	}}
	return &metadata{url: "http://metadata.tencentyun.com/latest/meta-data/cam/security-credentials/",
		client: &http.Client{Timeout: metadataTimeout, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// fetch gives the credential of the machine's role, which is good for some hours.
func (m *metadata) fetch(ctx context.Context) (Credential, error) {
	role, err := m.get(ctx, m.url)
	if err != nil {
		return Credential{}, err
	}
	name := strings.TrimSpace(string(role))
	if name == "" || strings.ContainsAny(name, "/?#\r\n") {
		return Credential{}, errors.New("the metadata service names no role: bind one to the machine in CAM")
	}
	body, err := m.get(ctx, m.url+name)
	if err != nil {
		return Credential{}, err
	}
	var said struct{ TmpSecretID, TmpSecretKey, Token, Code string } // names are matched in any case
	if err := json.Unmarshal(body, &said); err != nil {
		return Credential{}, errors.New("the metadata service's answer about the role is not JSON") // which may hold a credential
	}
	if said.Code != "Success" || said.TmpSecretID == "" || said.TmpSecretKey == "" {
		return Credential{}, fmt.Errorf("the metadata service gives no credential of the role %q: code %q", name, said.Code)
	}
	return Credential{said.TmpSecretID, said.TmpSecretKey, said.Token}, nil
}

func (m *metadata) get(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := m.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the machine's metadata service: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	switch res.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	case http.StatusNotFound:
		return nil, errors.New("the machine has no role: bind one to it in CAM")
	}
	return nil, fmt.Errorf("the machine's metadata service answers with HTTP status %d", res.StatusCode)
}
