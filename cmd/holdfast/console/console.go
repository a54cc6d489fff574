// Package console lets a person and other programs look at a running gateway:
// HTTP with a JSON API, on a unix socket for the command line and on a TCP
// address for a browser. Changes, and what is nobody else's business, are on the
// socket only, whose file mode says who may.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// maxSocketPath is the longest path of a unix socket (unix(7): 108 bytes with
// the terminating zero).
const maxSocketPath = 107

// Options are what a console is made of.
type Options struct {
	Address string // host:port; "" is off
	Socket  string // path of the unix socket
	// Status returns what /api/v1/status answers, as JSON. It is called by
	// many goroutines.
	Status func() any
	// Queues is what is served below /api/v1/queues on the TCP address, and
	// QueuesAll on the socket; nil for nothing.
	Queues, QueuesAll http.Handler
	// Metrics is served at /metrics; nil for nothing.
	Metrics http.Handler
	// Alive and Ready are what /healthz and /readyz ask: an error is answered
	// with 503 and its words. nil means yes. They must not block.
	Alive, Ready func() error
	Logger       *slog.Logger
}

// Server is a running console.
type Server struct {
	unix, tcp http.Server
	serving   sync.WaitGroup
	address   net.Addr // of the TCP listener; nil if it is off
}

// Start listens and serves. A socket that an earlier process left behind is
// removed: the caller must hold the lock of the data folder it belongs to.
func Start(o Options) (*Server, error) {
	if len(o.Socket) > maxSocketPath {
		return nil, fmt.Errorf("the path of the console's socket has %d bytes, at most %d are possible: set console.socket to a shorter one (%s)",
			len(o.Socket), maxSocketPath, o.Socket)
	}
	if err := os.Remove(o.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old console socket: %w", err)
	}
	unix, err := net.Listen("unix", o.Socket)
	if err != nil {
		return nil, fmt.Errorf("open the console socket: %w; check console.socket", err)
	}
	// Who may read the data folder may read the state of the gateway.
	if err := os.Chmod(o.Socket, 0o660); err != nil {
		unix.Close()
		return nil, fmt.Errorf("set the mode of the console socket: %w", err)
	}
	s := &Server{
		unix: http.Server{Handler: handler(o, o.QueuesAll), ReadHeaderTimeout: 5 * time.Second},
		tcp:  http.Server{Handler: handler(o, o.Queues), ReadHeaderTimeout: 5 * time.Second},
	}
	s.serve(&s.unix, unix, o.Logger)
	if o.Address == "" {
		return s, nil
	}
	tcp, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("open the console: %w; choose another console.address, or \"\" for none", err),
			s.Shutdown(context.Background()))
	}
	s.address = tcp.Addr()
	o.Logger.Info("console", "address", tcp.Addr().String())
	s.serve(&s.tcp, tcp, o.Logger)
	return s, nil
}

// Address is that of the TCP listener, nil if there is none.
func (s *Server) Address() net.Addr { return s.address }

func (s *Server) serve(srv *http.Server, ln net.Listener, log *slog.Logger) {
	s.serving.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the console has stopped", "error", err)
		}
	})
}

// Shutdown stops serving and waits for requests under way, until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, srv := range []*http.Server{&s.unix, &s.tcp} {
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}
	s.serving.Wait()
	return nil
}

func handler(o Options, queues http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(o.Alive))
	mux.HandleFunc("GET /readyz", answer(o.Ready))
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(o.Status()); err != nil {
			o.Logger.Warn("status not sent", "error", err)
		}
	})
	if queues != nil {
		mux.Handle("/api/v1/queues", queues)
		mux.Handle("/api/v1/queues/", queues)
	}
	return mux
}

// answer is for programs that ask whether all is well.
func answer(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if ask != nil {
			if err := ask(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	}
}
