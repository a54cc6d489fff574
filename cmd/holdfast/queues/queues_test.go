package queues

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/storage"
)

// served is a store in memory with the queue of one bridge, and its client.
func served(t *testing.T, o storage.QueueOptions) (*Client, *storage.Queue, *storage.Store) {
	t.Helper()
	s, err := storage.OpenMemory(storage.Options{AckDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o.Ledger = true
	q, err := s.Queue("bridge/cloud", o)
	if err != nil {
		t.Fatal(err)
	}
	c := Local("a test", NewServer(s, func() []string { return []string{"cloud"} }), s.Close)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, q, s
}

func fill(t *testing.T, q *storage.Queue, n int) {
	t.Helper()
	var list []storage.Append
	for i := range n {
		list = append(list, storage.Append{Route: "r", Msg: &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Append(nil, i), Received: time.Now()}})
	}
	if err := q.Import(list); err != nil {
		t.Fatal(err)
	}
}

func ignore(Event) {}

func TestAnExportThatIsNotSafeLeavesEverything(t *testing.T) {
	c, q, _ := served(t, storage.QueueOptions{})
	fill(t, q, 100)
	full := errors.New("no space left on the stick")
	for name, run := range map[string]func() error{
		"the file cannot be written": func() error {
			_, err := c.Export(t.Context(), "cloud", false, ignore, func([]byte) error { return full }, nil)
			return err
		},
		"the file cannot be synced": func() error {
			_, err := c.Export(t.Context(), "cloud", false, ignore, func([]byte) error { return nil }, func(Event) error { return full })
			return err
		},
		"it is interrupted": func() error {
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err := c.Export(ctx, "cloud", false, ignore, func([]byte) error { cancel(full); return nil }, func(e Event) error {
				if q.Len() != 100 {
					t.Error("messages left before the file was safe")
				}
				return full
			})
			return err
		},
	} {
		if err := run(); !errors.Is(err, full) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		// The server lets go when it sees that the connection has ended.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		it, err := q.Next(ctx, holdfast.AllLanes)
		cancel()
		if err != nil || string(it.Msg.Payload) != "0" {
			t.Fatalf("%s: %v %v", name, it, err)
		}
		q.Release(it.ID)
	}
	if n := q.Len(); n != 100 {
		t.Fatalf("%d are left", n)
	}
	n := 0
	end, err := c.Export(t.Context(), "cloud", false, ignore, func([]byte) error { n++; return nil }, func(e Event) error {
		if _, ok, _ := q.TryNext(); ok || q.Len() != 100 {
			t.Error("it is handed out meanwhile, or has left already")
		}
		// Meanwhile nobody else may export or purge.
		if _, err := c.Export(t.Context(), "cloud", false, ignore, nil, nil); err == nil || !strings.Contains(err.Error(), "an export of queue") {
			t.Error(err)
		}
		if _, err := c.Purge(t.Context(), "cloud", 0); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Error(err)
		}
		return nil
	})
	if err != nil || n != 100 || end.Messages != 100 || q.Len() != 0 || q.Ledger()["r"].Exported != 100 {
		t.Fatalf("%d, %+v, %v, %d left", n, end, err, q.Len())
	}
}

func TestWhatIsBeingSentIsNotExported(t *testing.T) {
	c, q, _ := served(t, storage.QueueOptions{})
	fill(t, q, 5)
	sent, _, _ := q.TryNext()
	var got []string
	end, err := c.Export(t.Context(), "cloud", false, ignore, func(b []byte) error {
		l, err := ParseLine(b[:len(b)-1])
		got = append(got, string(l.Msg.Payload))
		return err
	}, func(Event) error { return nil })
	if err != nil || end.InFlight != 1 || !slices.Equal(got, []string{"1", "2", "3", "4"}) {
		t.Fatalf("%q %+v %v", got, end, err)
	}
	q.Ack(sent.ID)
	if books := q.Ledger()["r"]; books.Delivered != 1 || books.Exported != 4 || !books.Balanced() {
		t.Fatalf("%+v", books)
	}
}

func TestAnImportKeepsWhatItHasReported(t *testing.T) {
	c, q, _ := served(t, storage.QueueOptions{MaxMessages: 1000})
	line := `{"topic":"t","qos":1,"payload":"` + strings.Repeat("x", 1000) + `"}` + "\n"
	// A source that breaks off in the middle of a line.
	lines := io.MultiReader(strings.NewReader(strings.Repeat(line, 300)+line[:20]), errReader{})
	var last Event
	end, err := c.Import(t.Context(), "cloud", false, lines, func(e Event) { last = e })
	if err == nil || last.Messages < 200 || q.Len() < int(last.Messages) || end.Messages < last.Messages {
		t.Fatalf("%+v %+v %v, %d in the queue", end, last, err, q.Len())
	}
	c, q, _ = served(t, storage.QueueOptions{MaxMessages: 900})
	end, err = c.Import(t.Context(), "cloud", false, strings.NewReader(strings.Repeat(line, 1000)), func(Event) {})
	if err == nil || !strings.Contains(err.Error(), "full") || end.Line != int(end.Messages) || end.Messages == 0 || q.Len() != int(end.Messages) {
		t.Fatalf("%+v %v, %d in the queue", end, err, q.Len())
	}
	big := `{"topic":"t","qos":1,"payload":"` + strings.Repeat("x", storage.MaxMessage) + `"}`
	if end, err = c.Import(t.Context(), "cloud", true, strings.NewReader(big), func(Event) {}); err != nil || end.BadLines != 1 || end.Messages != 0 {
		t.Fatalf("%+v %v", end, err)
	}
	for _, m := range []string{"r", ""} { // books of routes that nobody has heard of are bounded
		var many strings.Builder
		for i := range 300 {
			fmt.Fprintf(&many, `{"topic":"t","qos":0,"payload":"","route":"%s%d"}`+"\n", m, i)
		}
		if _, err = c.Import(t.Context(), "cloud", false, strings.NewReader(many.String()), func(Event) {}); err == nil || !strings.Contains(err.Error(), "routes") {
			t.Fatal(err)
		}
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the stick was pulled out") }

func TestSessionsAreLookedAtOnly(t *testing.T) {
	c, _, s := served(t, storage.QueueOptions{})
	done := make(chan error, 1)
	s.Change(&holdfast.SessionChange{ClientID: "dev/1", Save: &holdfast.SessionState{}, Append: []*holdfast.Message{{Topic: "t", QoS: 1, Payload: []byte("x"), Received: time.Now()}}}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 2 || list[1].Queue != "session/dev/1" || !list[1].Session || list[1].Depth != 1 || list[1].Oldest == nil || list[0].Retired {
		t.Fatalf("%+v %v", list, err)
	}
	n := 0
	if err := c.Peek(t.Context(), "session/dev/1", "", 10, func(*Line) { n++ }); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, err := c.Export(t.Context(), "session/dev/1", true, ignore, func([]byte) error { n++; return nil }, func(Event) error { return nil }); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	_, purge := c.Purge(t.Context(), "session/dev/1", 0)
	_, retry := c.Unquarantine(t.Context(), "session/dev/1", false, nil)
	_, export := c.Export(t.Context(), "session/dev/1", false, ignore, nil, nil)
	_, imported := c.Import(t.Context(), "session/dev/1", false, strings.NewReader(""), ignore)
	for _, err := range []error{purge, retry, export, imported} {
		if err == nil || !strings.Contains(err.Error(), "emptied by its client") {
			t.Error(err)
		}
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	c, _, _ := served(t, storage.QueueOptions{})
	if err := c.Peek(t.Context(), "cloud", "fast", 1, nil); err == nil || !strings.Contains(err.Error(), "high, normal or low") {
		t.Error(err)
	}
	for _, id := range []string{"17", "normal-", "fast-1", "-1", "normal-99999999999999999999"} {
		if _, err := c.Unquarantine(t.Context(), "cloud", true, []string{id}); err == nil || !strings.Contains(err.Error(), "is no message in quarantine") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := c.Purge(t.Context(), "else", 0); err == nil || !strings.Contains(err.Error(), `there is no queue "else"; there are: cloud`) {
		t.Error(err)
	}
}

// What is served where anybody may come shows no payload and changes nothing.
func TestTheReadOnlyAPI(t *testing.T) {
	_, q, s := served(t, storage.QueueOptions{})
	fill(t, q, 1)
	h := NewServer(s, func() []string { return nil }).Reads()
	for path, want := range map[string]int{
		"GET /api/v1/queues":                                    http.StatusOK,
		"POST /api/v1/queues":                                   http.StatusMethodNotAllowed,
		"GET /api/v1/queues/peek?queue=cloud&n=1":               http.StatusNotFound,
		"GET /api/v1/queues/quarantine?queue=cloud":             http.StatusNotFound,
		"POST /api/v1/queues/export?queue=cloud":                http.StatusNotFound,
		"POST /api/v1/queues/import?queue=cloud":                http.StatusNotFound,
		"POST /api/v1/queues/purge?queue=cloud":                 http.StatusNotFound,
		"POST /api/v1/queues/quarantine/drop?queue=cloud&all=1": http.StatusNotFound,
	} {
		method, url, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, url, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
