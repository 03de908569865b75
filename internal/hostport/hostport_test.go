package hostport

import (
	"net/url"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{ // "": it is one; "dial": to listen at, not to connect to
		"127.0.0.1:9469": "", "[::1]:80": "", "[fe80::1%eth0]:1": "", ":9469": "", "localhost:65535": "", "my_box-1.example.:80": "", "127.0.0.1:0": "dial",
		"": "HOST:PORT", "9469": "HOST:PORT", "127.0.0.1": "HOST:PORT", "::1:80": "HOST:PORT", "http://127.0.0.1:80": "HOST:PORT", "unix:/x": `port "/x"`, "unix:///run/x": "HOST:PORT",
		"h:": `port ""`, "h:-1": `port "-1"`, "h:65536": `port "65536"`, "h:99999": "65535", "h:http": `port "http"`, "h:80/metrics": `port "80/metrics"`, "h:+1": "port", "h: 80": "port", "h:80\n": "port",
		"a b:80": `host "a b"`, "u@h:80": `host "u@h"`, "/run/x:80": "host", "256.0.0.1:80": "host", "1.2.3:80": "host", "5:80": "host", ".:80": "host", "[x]:80x": "port",
	} {
		for kind, err := range map[string]error{"listen": Listen(address), "dial": Dial(address)} {
			if good := want == "" || want == "dial" && kind == "listen"; (err == nil) != good {
				t.Errorf("%s %q: %v", kind, address, err)
			}
		}
		if err := Listen(address); err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v, want %s", address, err, want)
		}
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://h": "", "https://h:1/x": "", "http://[::1]:65535": "", "http://例え.jp:80": "", "http://10.0.0.1": "",
		"http://": "host is missing", "http://:80": "host is missing", "http:///x": "host is missing", "http://u:CANARY@:80": "host is missing",
		"http://h:": "no port", "http://h:0": `port "0"`, "http://h:99999": `port "99999"`, "http://u:CANARY@h:65536": `port "65536"`, "http://300.0.0.1": "host", "http://300.0.0.1:99999": "port",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := URL(u); (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY")) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
