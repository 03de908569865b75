package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"tiwkeyd/internal/connlimit"
	"tiwkeyd/internal/kept"
)

// Handler serves /metrics, /healthz and /readyz.
func (m *Monitor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", kept.Metrics(m.Registry, m.count))
	mux.HandleFunc("GET /healthz", answer(m.Alive))
	mux.HandleFunc("GET /readyz", answer(m.Ready))
	return mux
}

func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, oneLine(err), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// Server serves a handler at an address that can be changed while it runs.
type Server struct {
	Handler http.Handler
	Limit   *connlimit.Limit // of its connections

	mu    sync.Mutex
	asked string // the address as it was asked for
	front *front // nil: none
	group sync.WaitGroup
}

// front is one listening socket and what serves at it.
type front struct {
	listener net.Listener
	server   *http.Server
}

// grace is how long an answer under way may take when its address is given up.
const grace = 2 * time.Second

// Listen serves at addr from now on, at none if it is empty. Where it cannot, everything stays
// as it was; where nothing changes, the socket stays the same.
func (s *Server) Listen(addr string, log *slog.Logger) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if addr == s.asked {
		return nil
	}
	if addr == "" {
		s.retire(s.front)
		s.front, s.asked = nil, ""
		return nil
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) && s.front != nil && samePort(addr, s.asked) {
		// 127.0.0.1:9469 and :9469 exclude each other: it may be ourselves who is in the way.
		old := s.front
		_ = old.listener.Close()
		if listener, err = net.Listen("tcp", addr); err != nil {
			s.retire(old)
			back, backErr := net.Listen("tcp", old.listener.Addr().String())
			if backErr != nil {
				log.Error("the old address could not be taken again either", "error", backErr.Error())
				s.front, s.asked = nil, ""
				return fmt.Errorf("TIWKEYD_HTTP_ADDR: %w", err)
			}
			s.front = s.serve(back, log)
		}
	}
	if err != nil {
		return fmt.Errorf("TIWKEYD_HTTP_ADDR: %w", err)
	}
	s.retire(s.front)
	s.front, s.asked = s.serve(listener, log), addr
	return nil
}

func samePort(a, b string) bool {
	_, one, errA := net.SplitHostPort(a)
	_, two, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && one == two
}

func (s *Server) serve(l net.Listener, log *slog.Logger) *front {
	f := &front{s.Limit.Listener(l, log), s.Limit.Server(s.Handler, log)}
	s.group.Go(func() {
		if err := f.server.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			log.Error("metrics and health are served no more", "address", l.Addr().String(), "error", err.Error())
		}
	})
	return f
}

// retire ends a front once its answers under way are out.
func (s *Server) retire(f *front) {
	if f == nil {
		return
	}
	_ = f.listener.Close()
	s.group.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if f.server.Shutdown(ctx) != nil {
			_ = f.server.Close()
		}
	})
}

// Addr is where it serves, "" if nowhere.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.front == nil {
		return ""
	}
	return s.front.listener.Addr().String()
}

// Close ends it, with the answers under way.
func (s *Server) Close() {
	s.mu.Lock()
	f := s.front
	s.front, s.asked = nil, ""
	s.mu.Unlock()
	if f != nil {
		_ = f.server.Close()
	}
	s.group.Wait()
}
