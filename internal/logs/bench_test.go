package logs

import (
	"io"
	"log/slog"
	"os"
	"testing"
	"time"
)

// BenchmarkLine is what a line costs whoever logs it: as the library writes it, and through the
// queue, to a file.
func BenchmarkLine(b *testing.B) {
	for _, c := range []struct {
		name string
		log  func(io.Writer) (*slog.Logger, func())
	}{
		{"direct", func(w io.Writer) (*slog.Logger, func()) {
			return slog.New(slog.NewTextHandler(w, nil)), func() {}
		}},
		{"queued", func(w io.Writer) (*slog.Logger, func()) {
			q := NewQueue(w, 0)
			return New(q, slog.LevelInfo, false), func() { q.Close(time.Minute) }
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := os.Create(b.TempDir() + "/log")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			log, end := c.log(f)
			defer end()
			b.ReportAllocs()
			for b.Loop() {
				log.Info("push done", "target", "1400000001/whiteboard-push", "why", "its time has come", "key", "k-1")
			}
		})
	}
}
