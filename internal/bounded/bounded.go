// Package bounded reads no more of an HTTP answer, or of a file, than it may have. Libraries take all
// of an answer into memory, several times over, whoever gives it.
package bounded

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

// File reads a file of at most so many bytes.
func File(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return content, err
}

// TooLong is the error of an answer that has more than so many bytes, unpacked.
type TooLong int64

func (e TooLong) Error() string {
	return fmt.Sprintf("the answer is longer than %d bytes, and the rest was not read", int64(e))
}

// Transport gives answers of at most Max bytes; the body of a longer one ends in TooLong.
type Transport struct {
	*http.Transport
	Max int64
}

// RoundTrip sends a request.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Transport.RoundTrip(r)
	if err == nil {
		res.Body = &body{res.Body, t.Max, t.Max}
	}
	return res, err
}

// body has left bytes at most; below zero there were more.
type body struct {
	io.ReadCloser
	left, most int64
}

// Read gives the error instead of the last bytes: half an answer is none. It ends the connection,
// which would stay where a caller closes nothing after an error, as Tencent's library.
func (b *body) Read(p []byte) (n int, err error) {
	if b.left >= 0 {
		n, err = b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
		b.left -= int64(n)
	}
	if b.left < 0 {
		_ = b.Close()
		return 0, TooLong(b.most)
	}
	return n, err
}
