// Package logs has whoever serves, rotates or reads keys never wait for who reads the log, and a
// stranger never fill it.
//
// A line is made where it is logged, so that it tells how things were then, and waits in a Queue
// for one goroutine to write it. Normally that is at once: what ends the process by SIGKILL or a
// panic costs the lines of the last moment, and what the runtime says of a panic does not come this
// way: it waits for who reads. Close, before os.Exit, waits for the rest.
package logs

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a line was lost, as the label of Lost.
const (
	unread = "unread"
	failed = "failed"
	flood  = "flood"
)

// Lost counts the lines of this process that were not written.
var Lost = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_log_lines_lost_total",
	Help: "Log lines that were not written: unread (too many waited for who reads the log), failed (no writing them: the reader is gone, or the disk full), flood (too many of a kind that strangers can cause)."}, []string{"why"})

func init() {
	for _, why := range []string{unread, failed, flood} {
		Lost.WithLabelValues(why)
	}
}

// DefaultRoom is for how many bytes of lines a Queue has room.
const DefaultRoom = 1 << 20

// Queue is a writer of lines that never blocks and never fails: what there is no room for is lost,
// and a line says so once the others are written.
type Queue struct {
	out  io.Writer
	room int
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []byte // whole lines
	lost    int    // lines, which no line has told of
	since   time.Time
	asJSON  bool // as the line that tells of them is to be
	closed  bool
}

// NewQueue gives a Queue before out; room 0 means DefaultRoom. It needs to be closed.
func NewQueue(out io.Writer, room int) *Queue {
	if room <= 0 {
		room = DefaultRoom
	}
	// As much again may be in the hands of the goroutine that writes.
	q := &Queue{out: out, room: room / 2, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one line, with its end.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting)+len(line) > q.room {
		q.lose(1, time.Now())
		Lost.WithLabelValues(unread).Inc()
	} else {
		q.waiting = append(q.waiting, line...)
	}
	if !q.closed {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// lose notes lines that are to be told of. The caller holds the lock.
func (q *Queue) lose(n int, since time.Time) {
	if q.lost == 0 || since.Before(q.since) {
		q.since = since
	}
	q.lost += n
}

// Close writes what waits, for so long at most: nobody may ever read it.
func (q *Queue) Close(limit time.Duration) {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.wake)
	}
	q.mu.Unlock()
	over := time.NewTimer(limit)
	defer over.Stop()
	select {
	case <-q.done:
	case <-over.C:
	}
}

func (q *Queue) run() {
	defer close(q.done)
	var lines []byte
	torn := false // the last line was begun and not ended
	put := func(line []byte) bool {
		if torn {
			line = append([]byte{'\n'}, line...)
		}
		n, err := q.out.Write(line)
		torn = err != nil && (n > 0 || torn)
		return err == nil
	}
	for range q.wake {
		q.mu.Lock()
		lines, q.waiting = q.waiting, lines[:0]
		lost, since, asJSON := q.lost, q.since, q.asJSON
		q.lost = 0
		q.mu.Unlock()
		ok := true
		for line := range bytes.Lines(lines) {
			if ok = put(line); !ok {
				Lost.WithLabelValues(failed).Inc()
				if lost++; lost == 1 {
					since = time.Now()
				}
			}
		}
		if lost > 0 && (!ok || !put(lostLine(lost, since, asJSON))) {
			q.mu.Lock()
			q.lose(lost, since)
			q.mu.Unlock()
		}
	}
}

func lostLine(lost int, since time.Time, asJSON bool) []byte {
	var line bytes.Buffer
	slog.New(format(&line, slog.LevelWarn, asJSON)).Warn("lines of this log were lost: they were not read in time, or could not be written", "lost", lost, "since", since)
	return line.Bytes()
}
