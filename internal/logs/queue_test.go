package logs

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is who reads the log: not at all until it is let, or with errors. It keeps what it read.
type reader struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wait  chan struct{}
	fails []func(line []byte) (int, error) // one for each write; then all is well
}

func (r *reader) Write(line []byte) (int, error) {
	if r.wait != nil {
		<-r.wait
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.fails) > 0 {
		f := r.fails[0]
		if r.fails = r.fails[1:]; f != nil {
			n, err := f(line)
			r.text.Write(line[:n])
			return n, err
		}
	}
	return r.text.Write(line)
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Reset()
}

// TestAllInOrder: nothing is lost, and nothing told twice, while the log is read.
func TestAllInOrder(t *testing.T) {
	t.Parallel()
	out := &reader{}
	q := NewQueue(out, 0)
	var want strings.Builder
	for i := range 1000 {
		line := strings.Repeat("x", i%50) + "\n"
		want.WriteString(line)
		if n, err := io.WriteString(q, line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	q.Close(time.Minute)
	if out.String() != want.String() {
		t.Error("the lines are not those that were written")
	}
	q.Close(time.Minute) // once more does no harm
}

// TestAtOnce: a line does not wait for another one, or for the end.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		q := NewQueue(out, 0)
		defer q.Close(time.Second)
		for _, want := range []string{"one\n", "one\ntwo\n"} {
			_, _ = io.WriteString(q, want[len(want)-4:])
			synctest.Wait()
			if out.String() != want {
				t.Errorf("%q, want %q", out.String(), want)
			}
		}
	})
}

// TestUnread: nobody waits for who does not read, and how much that cost is told when the rest is
// read, in the log's own form.
func TestUnread(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			out := &reader{wait: make(chan struct{})}
			q := NewQueue(out, 8000)
			defer q.Close(time.Second)
			log := New(q, slog.LevelInfo, asJSON)
			log.Info("first")
			synctest.Wait() // it is being written
			began := time.Now()
			for range 500 {
				log.Info("line")
			}
			time.Sleep(time.Minute)
			for range 500 {
				log.Info("line")
			}
			if time.Since(began) > time.Minute {
				t.Error("it waited")
			}
			q.mu.Lock()
			if n := len(q.waiting); n > 4000 {
				t.Errorf("%d bytes wait", n)
			}
			q.mu.Unlock()
			time.Sleep(time.Minute)
			close(out.wait)
			synctest.Wait()
			text := out.String()
			kept, notices := strings.Count(text, "line")-1, strings.Count(text, "lost")
			if notices == 0 || !strings.HasSuffix(text, "\n") || kept < 10 {
				t.Fatalf("%d lines, and:\n%s", kept, text[max(0, len(text)-500):])
			}
			last := text[strings.LastIndex(text[:len(text)-1], "\n")+1:]
			format := map[bool]string{false: "lost=%d since=2000-01-01T00:00:00", true: `"lost":%d,"since":"2000-01-01T00:00:00`}[asJSON]
			if want := strings.Replace(format, "%d", itoa(1000-kept), 1); !strings.Contains(last, want) || !strings.Contains(last, "WARN") {
				t.Errorf("%d lines were kept, and the last is %s", kept, last)
			}
			log.Info("again")
			synctest.Wait()
			if text = out.String(); !strings.HasSuffix(text, "\n") || !strings.Contains(text[len(text)-60:], "again") || strings.Count(text, "were lost") != 1 {
				t.Errorf("after it:\n%s", text[len(text)-300:])
			}
		})
	}
}

func itoa(n int) string { return slog.IntValue(n).String() }

// TestEndDoesNotWait longer than it may for who reads nothing.
func TestEndDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &reader{wait: make(chan struct{})}
		q := NewQueue(out, 0)
		_, _ = io.WriteString(q, "line\n")
		began := time.Now()
		q.Close(time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s", took)
		}
		if _, err := io.WriteString(q, "too late\n"); err != nil {
			t.Error(err)
		}
		close(out.wait)
		q.Close(time.Second)
		if out.String() != "line\n" && !strings.HasPrefix(out.String(), "line\ntime=") {
			t.Errorf("%q", out.String())
		}
	})
}

// TestWriteFails: a reader that is gone, a full disk. Lines count as lost, half a line does not
// spoil the next one, and what was lost is told when a line gets through again.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	gone := func([]byte) (int, error) { return 0, errors.New("broken pipe") }
	half := func(line []byte) (int, error) { return len(line) / 2, errors.New("no space left on device") }
	for _, c := range []struct {
		name  string
		fails []func([]byte) (int, error)
		want  string // without the line that tells
		lost  string
	}{
		{"gone", []func([]byte) (int, error){nil, gone, gone}, "1234\n4234\n", "lost=2 "},
		{"half a line", []func([]byte) (int, error){nil, half}, "1234\n22\n3234\n4234\n", "lost=1 "},
		{"half a line, and then none", []func([]byte) (int, error){half, gone}, "12\n3234\n4234\n", "lost=2 "},
		{"so does the line that tells", []func([]byte) (int, error){gone, nil, gone}, "2234\n3234\n4234\n", "lost=1 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				out := &reader{fails: c.fails}
				q := NewQueue(out, 0)
				defer q.Close(time.Second)
				for _, line := range []string{"1234\n", "2234\n", "3234\n", "4234\n"} {
					_, _ = io.WriteString(q, line)
					synctest.Wait()
				}
				var lines, notices []string
				for line := range strings.Lines(out.String()) {
					if strings.Contains(line, "were lost") {
						notices = append(notices, line)
					} else {
						lines = append(lines, line)
					}
				}
				if got := strings.Join(lines, ""); got != c.want || len(notices) != 1 || !strings.Contains(notices[0], c.lost) {
					t.Errorf("%q and %q, want %q and %s", got, notices, c.want, c.lost)
				}
			})
		})
	}
}
