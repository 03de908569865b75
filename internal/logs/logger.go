package logs

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"tiwkeyd/internal/printable"
)

const (
	longest = 4 << 10 // bytes of a text in a line
	spoken  = 2 << 10 // ... that a library says
	foreign = 256     // ... that a stranger can choose

	// Of each kind a stranger can cause burst lines at once, and then one each pause.
	burst = 20
	pause = time.Second

	// tellAfter is how long it takes at most until a line says how many others were left out.
	tellAfter = 10 * time.Second
)

// New gives a logger that writes to out.
func New(out io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	if q, ok := out.(*Queue); ok {
		q.mu.Lock()
		q.asJSON = asJSON
		q.mu.Unlock()
	}
	return slog.New(&handler{Handler: format(out, level, asJSON), most: longest})
}

func format(out io.Writer, level slog.Level, asJSON bool) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if asJSON {
		return slog.NewJSONHandler(out, o)
	}
	return slog.NewTextHandler(out, o)
}

// Limit gives a logger for what anybody who reaches a socket can cause. Lines of one message and
// level are of a kind, of which only so many are written; the next one, or one that comes a little
// later, has the number of those that were left out. So a message has to be one of the program's
// own, and foreign texts, which are cut, to be attributes.
func Limit(log *slog.Logger) *slog.Logger { return slog.New(limited(log, foreign)) }

func limited(log *slog.Logger, most int) *handler {
	return &handler{Handler: log.Handler(), most: most, kinds: &kinds{all: map[kind]*tally{}}}
}

// ErrorLog has what a library says in words be lines of one message, limited as by Limit.
func ErrorLog(to *slog.Logger, level slog.Level, message string) *log.Logger {
	return log.New(said{slog.New(limited(to, spoken)), level, message}, "", 0)
}

type said struct {
	log     *slog.Logger
	level   slog.Level
	message string
}

func (s said) Write(text []byte) (int, error) {
	s.log.Log(context.Background(), s.level, s.message, "error", strings.TrimSuffix(string(text), "\n"))
	return len(text), nil
}

// handler cuts texts, and leaves lines out where there are kinds.
type handler struct {
	slog.Handler
	most  int
	kinds *kinds // nil: no line is left out
}

type kind struct {
	level   slog.Level
	message string
}

type kinds struct {
	mu  sync.Mutex
	all map[kind]*tally
}

// tally is what is known of a kind.
type tally struct {
	rate    *rate.Limiter
	leftOut int
	tell    *time.Timer // nil while none is left out
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.most, h.kinds}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.most, h.kinds}
}

// Handle is that of slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	r = shortened(r, h.most)
	if h.kinds == nil {
		return h.Handler.Handle(ctx, r)
	}
	k := kind{r.Level, r.Message}
	h.kinds.mu.Lock()
	t := h.kinds.all[k]
	if t == nil {
		t = &tally{rate: rate.NewLimiter(rate.Every(pause), burst)}
		h.kinds.all[k] = t
	}
	if !t.rate.Allow() {
		if t.leftOut++; t.leftOut == 1 {
			t.tell = time.AfterFunc(tellAfter, func() { h.calm(k, t) })
		}
		h.kinds.mu.Unlock()
		Lost.WithLabelValues(flood).Inc()
		return nil
	}
	if t.leftOut > 0 {
		t.tell.Stop()
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", t.leftOut))
		t.leftOut = 0
	}
	h.kinds.mu.Unlock()
	return h.Handler.Handle(ctx, r)
}

// calm tells of lines that were left out and that no other line has told of.
func (h *handler) calm(k kind, t *tally) {
	h.kinds.mu.Lock()
	n := t.leftOut
	t.leftOut = 0
	h.kinds.mu.Unlock()
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), k.level, k.message, 0)
	r.AddAttrs(slog.Int("left_out", n))
	_ = h.Handler.Handle(context.Background(), r)
}

// shortened is the record with no text longer than so many bytes, and no URL's password in any. Errors are
// logged as texts, too.
func shortened(r slog.Record, most int) slog.Record {
	long := cut(r.Message, most) != r.Message
	r.Attrs(func(a slog.Attr) bool {
		long = long || a.Value.Kind() == slog.KindString && cut(a.Value.String(), most) != a.Value.String()
		return !long
	})
	if !long {
		return r
	}
	short := slog.NewRecord(r.Time, r.Level, cut(r.Message, most), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(cut(a.Value.String(), most))
		}
		short.AddAttrs(a)
		return true
	})
	return short
}

// cut shortens a text between two characters, and says how long it was.
func cut(text string, most int) string {
	text = printable.WithoutPassword(text)
	if len(text) <= most {
		return text
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s…(%d bytes)", text[:end], len(text))
}
