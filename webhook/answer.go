package webhook

import (
	"bytes"
	"io"
	"net/http"
)

// writeDone is the answer that Tencent suggests for a callback that was taken.
func writeDone(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"error_code":0}`)
}

// recorder sees whether and with what a handler answers.
type recorder struct {
	http.ResponseWriter
	status   int // of the final answer; 0: none yet
	finished bool
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write is an answer, too.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Flush is for handlers that ask for a http.Flusher.
func (r *recorder) Flush() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// finish is called when the handler has returned.
func (r *recorder) finish() {
	r.finished = true
	if r.status == 0 {
		r.status = http.StatusOK
		writeDone(r.ResponseWriter)
	}
}

// ok reports whether the handler returned, and with success.
func (r *recorder) ok() bool { return r.finished && r.status >= 200 && r.status < 300 }

// body is a request's body that has been read.
type body struct{ bytes.Reader }

func newBody(b []byte) *body {
	r := &body{}
	r.Reset(b)
	return r
}

// Close does nothing.
func (*body) Close() error { return nil }
