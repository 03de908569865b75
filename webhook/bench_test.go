package webhook

import (
	"crypto/md5"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// BenchmarkVerify tells, as ratios measured side by side, what verifying costs beyond what
// must be done anyhow: one MD5 of the same bytes, and reading the JSON into a struct.
func BenchmarkVerify(b *testing.B) {
	keys := Keys{SdkAppID: 1400000001}
	for i := range 2 {
		k, err := generate()
		if err != nil {
			b.Fatal(err)
		}
		keys.Accept = append(keys.Accept, k)
		_ = i
	}
	now := time.Now()
	for _, signer := range []struct {
		name  string
		key   Key
		tries int
	}{{"first key", keys.Accept[0], 1}, {"second key", keys.Accept[1], 2}} {
		body := tiwtest.Callback(keys.SdkAppID, "WhiteboardPushStarted", 7, signer.key.Reveal(), now.Add(time.Minute))
		c, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		var hashed [][]byte
		for _, k := range keys.Accept[:signer.tries] {
			hashed = append(hashed, strconv.AppendInt([]byte(k.Reveal()), c.ExpireTime, 10))
		}
		b.Run(signer.name+"/parsed", func(b *testing.B) {
			b.ReportAllocs()
			compare(b, "x_md5", func() {
				if _, err := c.Verify(keys, now); err != nil {
					b.Fatal(err)
				}
			}, func() {
				for _, h := range hashed {
					sink = md5.Sum(h)
				}
			})
		})
		b.Run(signer.name+"/whole", func(b *testing.B) {
			b.ReportAllocs()
			compare(b, "x_unmarshal", func() {
				if _, err := Verify(body, keys, now); err != nil {
					b.Fatal(err)
				}
			}, func() {
				var into plain
				if err := json.Unmarshal(body, &into); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

var sink [md5.Size]byte

type plain struct {
	Timestamp, SdkAppId, ExpireTime int64 //nolint:revive // as in the JSON
	Sign, EventType                 string
	EventData                       json.RawMessage
}

// compare reports how many times as long ours takes as theirs. The two take turns, so that
// whatever else the machine does befalls both.
func compare(b *testing.B, unit string, ours, theirs func()) {
	const turn = 1000
	var mine, others time.Duration
	for b.Loop() {
		at := time.Now()
		for range turn {
			ours()
		}
		between := time.Now()
		for range turn {
			theirs()
		}
		mine, others = mine+between.Sub(at), others+time.Since(between)
	}
	b.ReportMetric(float64(mine)/float64(others), unit)
	b.ReportMetric(float64(mine.Nanoseconds())/float64(b.N)/turn, "ns/verify")
	b.ReportMetric(0, "ns/op")
}

func generate() (Key, error) { return secrets.GenerateKey(nil, secrets.DefaultKeyLength) }
