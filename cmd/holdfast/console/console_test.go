package console

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthAndReadinessTellWhatIsWrong(t *testing.T) {
	var stuck, full error
	h := handler(Options{
		Logger: slog.New(slog.DiscardHandler),
		Alive:  func() error { return stuck }, Ready: func() error { return full },
	}, nil)
	ask := func(path string, code int, words string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != code || strings.TrimSpace(w.Body.String()) != words {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, code, words)
		}
	}
	ask("/healthz", 200, "ok")
	ask("/readyz", 200, "ok")
	full = errors.New("the disk is full: free some space")
	ask("/healthz", 200, "ok")
	ask("/readyz", 503, full.Error())
	stuck = errors.New("the broker has not answered")
	ask("/healthz", 503, stuck.Error())
	ask("/metrics", 404, "404 page not found")
}
